//! Chromium without a window, driven by chromedriver.

use fantoccini::{Client, ClientBuilder, wd::WebDriverCompatibleCommand};
use http::Method;
use serde_json::{Value, json};
use soma_testkit::command::{DEADLINE, Output, Running};
use std::{fmt, fs, path::PathBuf, process::Command, time::Duration};
use tokio::time::{Instant, sleep};
use url::Url;

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Widths that the page is made for, in pixels: a telephone and a large screen.
pub(crate) const WIDTHS: [u32; 2] = [360, 1_920];

/// Height of a screen, in pixels.
const SCREEN_HEIGHT: u64 = 1_080;

/// How often chromedriver may choose a port that is taken.
const MAX_STARTS: usize = 10;

/// A browser with one page open.
pub(crate) struct Browser {
    pub(crate) client: Client,
    /// Ends with the test, and the browser with it.
    _driver: Running,
}

/// A command of chromedriver that the standard does not have.
#[derive(Debug)]
struct Post {
    path: &'static str,
    body: Value,
}

impl WebDriverCompatibleCommand for Post {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, url::ParseError> {
        base.join(&format!("session/{}/{}", session.unwrap_or_default(), self.path))
    }

    fn method_and_body(&self, _: &Url) -> (Method, Option<String>) {
        (Method::POST, Some(self.body.to_string()))
    }
}

impl Browser {
    /// Starts a browser.
    pub(crate) async fn start() -> Self {
        let (driver, port) = (0..MAX_STARTS).find_map(|_| start_driver()).expect("chromedriver finds a port");
        let capabilities = json!({
            "browserName": "chrome",
            "goog:chromeOptions": {
                // Containers have little shared memory, and their only user has no sandbox.
                "args": ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"],
                "perfLoggingPrefs": {"enableNetwork": true},
            },
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        });
        let capabilities = capabilities.as_object().unwrap().clone();
        let mut builder = ClientBuilder::new(hyper_util::client::legacy::connect::HttpConnector::new());
        let client = builder.capabilities(capabilities).connect(&format!("http://127.0.0.1:{port}")).await.unwrap();
        Self { client, _driver: driver }
    }

    async fn post(&self, path: &'static str, body: Value) -> Value {
        self.client.issue_cmd(Post { path, body }).await.unwrap()
    }

    /// Opens the page of a node.
    pub(crate) async fn open(&self, admin: &str) {
        self.client.goto(&format!("http://{admin}/")).await.unwrap();
    }

    /// What a script returns.
    pub(crate) async fn run(&self, script: &str) -> Value {
        self.client.execute(script, Vec::new()).await.unwrap()
    }

    /// The text of an element that is shown; empty if it is hidden.
    pub(crate) async fn text(&self, id: &str) -> String {
        let text = self.run(&format!("return document.getElementById('{id}').innerText")).await;
        text.as_str().unwrap().to_owned()
    }

    /// Waits until the text of an element is such.
    pub(crate) async fn until(&self, id: &str, what: &str, holds: impl Fn(&str) -> bool) -> String {
        let started = Instant::now();
        loop {
            let text = self.text(id).await;
            if holds(&text) {
                return text;
            }
            assert!(started.elapsed() < DEADLINE, "waited in vain until {what}: {text:?}");
            sleep(LOOK).await;
        }
    }

    /// Shows the page in a width, and in light or dark colours.
    pub(crate) async fn look_as(&self, width: u32, scheme: &str) {
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.post("goog/cdp/execute", json!({"cmd": "Emulation.setEmulatedMedia", "params": media})).await;
        self.resize(width, SCREEN_HEIGHT).await;
        // As high as the page is, so that a picture has all of it.
        let height = self.run("return document.documentElement.scrollHeight").await;
        self.resize(width, height.as_u64().unwrap()).await;
    }

    async fn resize(&self, width: u32, height: u64) {
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.post("goog/cdp/execute", json!({"cmd": "Emulation.setDeviceMetricsOverride", "params": metrics})).await;
    }

    /// Leaves a picture of the page in each width, and checks what must hold in each state.
    pub(crate) async fn picture(&self, state: impl fmt::Display) {
        let dir = pictures();
        fs::create_dir_all(&dir).unwrap();
        for width in WIDTHS {
            for scheme in ["light", "dark"] {
                self.look_as(width, scheme).await;
                let image = self.client.screenshot().await.unwrap();
                fs::write(dir.join(format!("{state}-{width}-{scheme}.png")), image).unwrap();
                let overflow = "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
                assert_eq!(self.run(overflow).await, 0, "{state}: the page is wider than {width} pixels");
                let pale = self.run(PALE_TEXTS).await;
                assert_eq!(pale, json!([]), "{state}, {width}, {scheme}: texts with too little contrast");
            }
        }
    }

    /// Ends the browser. Fails if the page logged an error, or asked another host.
    pub(crate) async fn close(self, allowed_errors: &[&str]) {
        let console = self.post("se/log", json!({"type": "browser"})).await;
        let bad = console.as_array().unwrap().iter().filter(|line| {
            let text = line["message"].as_str().unwrap();
            line["level"] == "SEVERE" && !allowed_errors.iter().any(|allowed| text.contains(allowed))
        });
        assert_eq!(bad.collect::<Vec<_>>(), Vec::<&Value>::new(), "errors on the console");
        let network = self.post("se/log", json!({"type": "performance"})).await;
        let asked: Vec<String> = network.as_array().unwrap().iter().filter_map(requested).collect();
        assert!(asked.iter().any(|url| url.ends_with("/events")), "{asked:?}");
        let foreign: Vec<_> = asked.iter().filter(|url| !url.starts_with("http://127.0.0.1:")).collect();
        assert_eq!(foreign, Vec::<&String>::new(), "the page asks another host");
        self.client.close().await.unwrap();
    }
}

/// Where pictures are left.
fn pictures() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("../browser")
}

/// Starts chromedriver. None if another one has taken the port that it chose.
fn start_driver() -> Option<(Running, u16)> {
    let driver = Running::start(Command::new("chromedriver").arg("--port=0"));
    let (mut found, is_taken) = (None, |output: &Output| output.stderr.contains("Address already in use"));
    driver.until("chromedriver listens", |output| {
        found = port(&output.stdout);
        found.is_some() || is_taken(output)
    });
    Some((driver, found?))
}

fn port(output: &str) -> Option<u16> {
    output.lines().find_map(|line| line.split_once("successfully on port ")?.1.trim_end_matches('.').parse().ok())
}

/// The address that a line of the log of the network says was asked for.
fn requested(line: &Value) -> Option<String> {
    let message: Value = serde_json::from_str(line["message"].as_str()?).ok()?;
    let sent = &message["message"];
    (sent["method"] == "Network.requestWillBeSent")
        .then(|| sent["params"]["request"]["url"].as_str().map(Into::into))?
}

/// Texts whose contrast with what is behind them is under 4.5 to 1, as WCAG 2.2 AA wants it (criterion 1.4.3).
const PALE_TEXTS: &str = r"
const channels = (colour) => (colour.match(/[\d.]+/g) || []).map(Number);
const light = (colour) => channels(colour).slice(0, 3).map((value) => value / 255)
  .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4))
  .reduce((sum, value, index) => sum + value * [0.2126, 0.7152, 0.0722][index], 0);
const ground = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const colour = getComputedStyle(at).backgroundColor;
    if (channels(colour)[3] !== 0) return colour;
  }
  return 'rgb(255, 255, 255)';
};
const pale = [];
for (const element of document.querySelectorAll('body *')) {
  const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  if (!own || !element.checkVisibility()) continue;
  const [a, b] = [light(getComputedStyle(element).color), light(ground(element))];
  const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (contrast < 4.5) pale.push(`${element.tagName} ${element.textContent.trim().slice(0, 40)}: ${contrast.toFixed(2)}`);
}
return pale;
";
