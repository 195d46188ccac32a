//! `soma-p2p top`: a running node in a terminal, live.

use crate::{
    advice::{Verdict, advice_for},
    error::CliError,
    node_config::NodeConfig,
    node_status::NodeStatus,
    running,
    status::{in_words, state_text},
};
use ratatui::{
    DefaultTerminal, Frame,
    crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::Line,
    widgets::{Block, Gauge, Paragraph, Row, Sparkline, Table, Wrap},
};
use soma_p2p::{ChildState, ChildStatus, PeerStatus};
use std::{
    collections::VecDeque,
    io::IsTerminal,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

/// Time between two questions to the node.
const EVERY: Duration = Duration::from_secs(1);

/// Rates that are kept: more than terminals have columns.
const MAX_RATES: usize = 512;

#[derive(clap::Args)]
pub struct Args {
    /// The node's configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    let config = NodeConfig::read(&args.config)?;
    if !std::io::stdout().is_terminal() {
        return Err(CliError::input("top needs a terminal; `soma-p2p status --watch` does not"));
    }
    // A node that does not run is told before the screen is taken.
    let first = running::ask(&config, "/status")?;
    let mut view = View::default();
    view.answered(first, Instant::now());
    let mut terminal = ratatui::try_init().map_err(CliError::failed)?;
    let ended = follow(&config, &mut view, &mut terminal);
    ratatui::restore();
    ended.map(|()| ExitCode::SUCCESS)
}

/// Shows the node until the user has enough.
fn follow(config: &NodeConfig, view: &mut View, terminal: &mut DefaultTerminal) -> Result<(), CliError> {
    loop {
        terminal.draw(|frame| view.draw(frame)).map_err(CliError::failed)?;
        let asked = Instant::now();
        while let Some(wait) = EVERY.checked_sub(asked.elapsed()) {
            if !event::poll(wait).map_err(CliError::failed)? {
                break;
            }
            match event::read().map_err(CliError::failed)? {
                event if ends(&event) => return Ok(()),
                Event::Resize(..) => {
                    terminal.draw(|frame| view.draw(frame)).map_err(CliError::failed)?;
                }
                _ => {}
            }
        }
        match running::ask(config, "/status") {
            Ok(status) => view.answered(status, Instant::now()),
            Err(error) => view.failure = Some(error.to_string()),
        }
    }
}

/// Whether the user wants to leave: q, Esc or Ctrl-C.
fn ends(event: &Event) -> bool {
    let Event::Key(key) = event else { return false };
    let is_interrupt = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind == KeyEventKind::Press && (is_interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc))
}

/// What is shown.
#[derive(Default)]
struct View {
    node: Option<NodeStatus>,
    answered_at: Option<Instant>,
    /// Blocks per second, newest last.
    rates: VecDeque<u64>,
    /// Why the node does not answer.
    failure: Option<String>,
}

impl View {
    fn answered(&mut self, node: NodeStatus, now: Instant) {
        let blocks = |node: &NodeStatus| node.p2p.state_sync.as_ref().map_or(0, |sync| sync.blocks_fetched);
        if let (Some(before), Some(at)) = (&self.node, self.answered_at) {
            let fetched = blocks(&node).saturating_sub(blocks(before));
            let rate = fetched as f64 / now.saturating_duration_since(at).as_secs_f64().max(0.001);
            if self.rates.len() >= MAX_RATES {
                self.rates.pop_front();
            }
            self.rates.push_back(rate.round() as u64);
        }
        (self.node, self.answered_at, self.failure) = (Some(node), Some(now), None);
    }

    fn draw(&self, frame: &mut Frame<'_>) {
        let Some(node) = &self.node else { return };
        let actors = tree_rows(&node.p2p.tree, 0);
        let [verdict, height, rates, peers, tree, help] = Layout::vertical([
            Constraint::Length(4),
            Constraint::Length(3),
            Constraint::Length(5),
            Constraint::Fill(1),
            Constraint::Length((actors.len() as u16).saturating_add(3).min(frame.area().height / 3)),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        self.draw_verdict(frame, verdict, node);
        let p2p = &node.p2p;
        let label =
            format!("{} of {} ({} %), executor at {}", p2p.height, p2p.target, p2p.percent, node.executor.index);
        let gauge = Gauge::default().block(Block::bordered().title("height")).percent(p2p.percent.into()).label(label);
        frame.render_widget(gauge.gauge_style(Style::new().fg(Color::Blue)), height);
        let last = self.rates.back().copied().unwrap_or(0);
        let newest: Vec<u64> = self.rates.iter().rev().take(rates.width.into()).rev().copied().collect();
        let title = format!("blocks per second: {last}");
        frame.render_widget(Sparkline::default().block(Block::bordered().title(title)).data(newest), rates);
        draw_peers(frame, peers, &p2p.peers);
        let widths = [
            Constraint::Fill(2),
            Constraint::Length(16),
            Constraint::Length(14),
            Constraint::Length(8),
            Constraint::Fill(1),
        ];
        let header = Row::new(["actor", "state", "for", "restarts", "last exit"]).style(Modifier::BOLD);
        let table = Table::new(actors, widths).header(header).block(Block::bordered().title("actors"));
        frame.render_widget(table, tree);
        frame.render_widget(Line::from("q: quit"), help);
    }

    fn draw_verdict(&self, frame: &mut Frame<'_>, area: Rect, node: &NodeStatus) {
        let verdict = Verdict::of(&node.p2p);
        let colour = match verdict {
            _ if self.failure.is_some() => Color::Red,
            Verdict::Well => Color::Green,
            Verdict::NeedsAttention => Color::Yellow,
            Verdict::NotWell => Color::Red,
        };
        let text = self.failure.clone().unwrap_or_else(|| {
            let advice = advice_for(&node.p2p).map(|advice| format!(" What to do: {advice}")).unwrap_or_default();
            format!("{}: {}.{advice}", verdict.text(), node.p2p.explanation)
        });
        let title = format!("peer {} on {}", node.p2p.peer_id.short(), node.p2p.address);
        let paragraph = Paragraph::new(text).style(Style::new().fg(colour)).wrap(Wrap { trim: true });
        frame.render_widget(paragraph.block(Block::bordered().title(title)), area);
    }
}

fn draw_peers(frame: &mut Frame<'_>, area: Rect, peers: &[PeerStatus]) {
    let number = |value: Option<u64>| value.map(|value| value.to_string()).unwrap_or_default();
    let rows = peers.iter().map(|peer| {
        let serving = peer.serving.as_ref();
        let direction = match (peer.outbound, peer.inbound) {
            (true, true) => "both",
            (true, false) => "we ask it",
            _ => "it asks us",
        };
        Row::new([
            peer.peer_id.short(),
            direction.into(),
            number(serving.and_then(|serving| serving.highest).map(Into::into)),
            serving.and_then(|serving| serving.round_trip_ms).map(|ms| format!("{ms} ms")).unwrap_or_default(),
            number(serving.map(|serving| serving.served)),
            number(serving.map(|serving| serving.score.into())),
        ])
    });
    let header = Row::new(["peer", "direction", "height", "round trip", "served", "score"]).style(Modifier::BOLD);
    let table = Table::new(rows, [Constraint::Fill(1); 6]).header(header);
    frame.render_widget(table.block(Block::bordered().title(format!("{} peers", peers.len()))), area);
}

/// A row for each actor and supervisor, each level a step to the right.
fn tree_rows(child: &ChildStatus, depth: usize) -> Vec<Row<'static>> {
    let style = if child.state == ChildState::Running { Style::new() } else { Style::new().fg(Color::Red) };
    let row = Row::new([
        format!("{}{}", "  ".repeat(depth), child.name),
        state_text(child.state).to_owned(),
        in_words(Duration::from_millis(child.in_state_ms)),
        child.restarts.to_string(),
        child.last_exit.as_ref().map(ToString::to_string).unwrap_or_default(),
    ]);
    let below = child.children.iter().flat_map(|child| tree_rows(child, depth + 1));
    std::iter::once(row.style(style)).chain(below).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::{Terminal, backend::TestBackend, crossterm::event::KeyEvent};
    use serde_json::json;

    const PEER: &str = "ad77c94ad1a12d32c2d05724279a8e030a170c84335bd5ff595988f0cfbbed35";

    fn node(cause: &str, explanation: &str) -> NodeStatus {
        serde_json::from_value(json!({
            "peer_id": PEER, "chain_id": PEER, "address": "/ip4/127.0.0.1/tcp/1", "height": 10, "target": 40,
            "percent": 25, "cause": cause, "explanation": explanation, "banned": [],
            "peers": [{"peer_id": PEER, "outbound": true, "inbound": true, "serving": {
                "peer": PEER, "highest": 40, "lowest": 1, "in_flight": 2, "served": 7, "failures": 0,
                "round_trip_ms": 21, "score": 100,
            }}],
            "tree": {
                "name": "verifier", "state": "backing-off", "in_state_ms": 61_000, "restarts": 3,
                "last_exit": {"exit": "panicked", "reason": "a bug"}, "mailbox": null, "strategy": null, "children": [],
            },
            "executor": {"index": 9, "digest": "00"},
        }))
        .unwrap()
    }

    fn screen(view: &View) -> String {
        let mut terminal = Terminal::new(TestBackend::new(120, 40)).unwrap();
        terminal.draw(|frame| view.draw(frame)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn screen_has_the_verdict_the_height_the_peers_and_the_actors() {
        let mut view = View::default();
        view.answered(node("all-paused", "commit 11 is next, but all are paused"), Instant::now());
        let shown = screen(&view);
        let expected = [
            "The node is not well: commit 11 is next",
            "What to do: Wait a minute",
            "10 of 40 (25 %), executor at 9",
            "21 ms",
            "both",
            "restarting soon",
            "1 min 1 s",
            "a bug",
        ];
        for part in expected {
            assert!(shown.contains(part), "{part}: {shown}");
        }
    }

    #[test]
    fn node_that_does_not_answer_is_shown_as_it_was_with_the_reason() {
        let mut view = View::default();
        view.answered(node("syncing", "fetching commits 11 to 40"), Instant::now());
        view.failure = Some("the node does not answer".into());
        let shown = screen(&view);
        assert!(shown.contains("the node does not answer") && shown.contains("10 of 40"), "{shown}");
        assert!(!shown.contains("What to do"), "{shown}");
    }

    #[test]
    fn smallest_screens_show_what_fits() {
        let mut view = View::default();
        view.answered(node("syncing", "fetching commits 11 to 40"), Instant::now());
        for (width, height) in [(1, 1), (20, 5), (40, 12)] {
            let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
            terminal.draw(|frame| view.draw(frame)).unwrap();
        }
    }

    #[test]
    fn q_escape_and_control_c_end_it_and_other_keys_do_not() {
        let pressed = |code, modifiers| Event::Key(KeyEvent::new(code, modifiers));
        assert!(ends(&pressed(KeyCode::Char('q'), KeyModifiers::NONE)));
        assert!(ends(&pressed(KeyCode::Esc, KeyModifiers::NONE)));
        assert!(ends(&pressed(KeyCode::Char('c'), KeyModifiers::CONTROL)));
        assert!(!ends(&pressed(KeyCode::Char('c'), KeyModifiers::NONE)));
        assert!(!ends(&Event::Resize(1, 1)));
    }
}
