use super::*;
use tokio::time::advance;

const MIB: usize = 1 << 20;

fn reader(answers: &Arc<Answers>, number: u64, standing: &Standing) -> (Ends, Reader) {
    let ends = Ends::default();
    (ends.clone(), answers.reader(ConnectionId(number), ends, standing.clone()))
}

/// A stranger's connection with an unread response of the given size.
async fn unread(answers: &Arc<Answers>, number: u64, bytes: usize) -> (Ends, Held) {
    let (ends, reader) = reader(answers, number, &Standing::default());
    (ends, reader.reserve(bytes, bytes).await.made(bytes))
}

/// Reserves room for another response of the given size, if there is enough.
async fn finds_room(reader: &Reader, bytes: usize) -> Option<Held> {
    Some(timeout(Duration::from_millis(1), reader.reserve(bytes, bytes)).await.ok()?.made(bytes))
}

/// Advances the time, and runs the tasks that wait for it.
async fn pass(time: Duration) {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    advance(time).await;
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn connection_that_reads_nothing_is_ended_and_a_slow_reader_is_not() {
    let answers = Answers::new(Limits::default());
    let (silent, _unread) = unread(&answers, 1, MIB).await;
    let (slow, _slowly_read) = unread(&answers, 2, MIB).await;
    for _ in 0..10 {
        pass(STALL_WINDOW / 2).await;
        answers.sent(ConnectionId(2), PIECE);
    }
    assert!(silent.hang_up.is_cancelled() && silent.stalled.is_cancelled());
    assert!(!slow.hang_up.is_cancelled() && !slow.stalled.is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn connection_without_unread_responses_is_no_longer_watched() {
    let answers = Answers::new(Limits::default());
    for _ in 0..3 {
        let (ends, held) = unread(&answers, 1, MIB).await;
        pass(STALL_WINDOW / 2).await;
        drop(held);
        pass(STALL_WINDOW).await;
        assert!(!ends.hang_up.is_cancelled());
    }
    assert_eq!(answers.bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn stalled_connection_is_ended_before_the_one_that_holds_most() {
    let answers = Answers::new(Limits { in_all: 16 * MIB, ..Limits::default() });
    let (busy, busily_read) = unread(&answers, 1, 6 * MIB).await;
    let (silent, never_read) = unread(&answers, 2, 2 * MIB).await;
    pass(STALLED_AFTER).await;
    answers.sent(ConnectionId(1), 40 * MIB);
    let (_, newcomer) = reader(&answers, 3, &Standing::default());
    assert!(finds_room(&newcomer, 5 * MIB).await.is_none(), "no room until a connection has freed some");
    assert!(silent.hang_up.is_cancelled() && silent.stalled.is_cancelled());
    drop(never_read);
    let room = finds_room(&newcomer, 5 * MIB).await;
    assert!(room.is_some() && !busy.hang_up.is_cancelled());
    // Next is a connection that reads far too slowly. That is no fault of its peer.
    answers.sent(ConnectionId(3), 1_000 * MIB);
    pass(Duration::from_secs(60)).await;
    answers.sent(ConnectionId(1), PIECE);
    answers.sent(ConnectionId(3), PIECE);
    let (_, another) = reader(&answers, 4, &Standing::default());
    assert!(finds_room(&another, 4 * MIB).await.is_none());
    assert!(busy.hang_up.is_cancelled() && !busy.stalled.is_cancelled());
    drop(busily_read);
}

#[tokio::test(start_paused = true)]
async fn strangers_leave_room_to_one_another_and_a_quarter_to_known_peers() {
    let answers = Answers::new(Limits { in_all: 16 * MIB, ..Limits::default() });
    let mut taken = Vec::new();
    let mut of_each = Vec::new();
    for number in 0..5 {
        let (_, greedy) = reader(&answers, number, &Standing::default());
        let before = taken.len();
        while let Some(room) = finds_room(&greedy, MIB / 4).await {
            taken.push(room);
        }
        of_each.push((taken.len() - before) as f64 / 4.0);
    }
    assert_eq!(of_each, [6.0, 3.0, 1.5, 0.75, 0.5], "half of what is free");
    let known = Standing::default();
    known.favour(Duration::from_secs(600));
    let (_, known) = reader(&answers, 10, &known);
    assert!(finds_room(&known, 4 * MIB).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn known_peer_that_reads_nothing_is_not_hung_up_for_a_stranger() {
    let answers = Answers::new(Limits { in_all: 16 * MIB, ..Limits::default() });
    let known = Standing::default();
    known.favour(Duration::from_secs(600));
    let (ends, silent) = reader(&answers, 1, &known);
    let _unread = finds_room(&silent, 8 * MIB).await.unwrap();
    pass(STALLED_AFTER).await;
    let (_, stranger) = reader(&answers, 2, &Standing::default());
    assert!(finds_room(&stranger, 9 * MIB).await.is_none() && !ends.hang_up.is_cancelled());
    let (_, another) = reader(&answers, 3, &known);
    assert!(finds_room(&another, 9 * MIB).await.is_none() && ends.hang_up.is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn hung_up_connection_counts_until_its_memory_is_free() {
    let answers = Answers::new(Limits { in_all: 16 * MIB, ..Limits::default() });
    let (first, first_held) = unread(&answers, 1, 6 * MIB).await;
    let (second, _held) = unread(&answers, 2, 3 * MIB).await;
    pass(STALLED_AFTER).await;
    let (_, newcomer) = reader(&answers, 3, &Standing::default());
    for _ in 0..3 {
        assert!(finds_room(&newcomer, 5 * MIB).await.is_none());
        assert!(first.hang_up.is_cancelled() && !second.hang_up.is_cancelled(), "one is enough");
    }
    drop(first_held);
    assert!(finds_room(&newcomer, 5 * MIB).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn message_counts_until_its_last_piece_has_left_for_the_socket() {
    let answers = Answers::new(Limits::default());
    let reader = answers.reader(ConnectionId(1), Ends::default(), Standing::default());
    let message = Bytes::from(vec![7; 3 * PIECE + 1]);
    let mut body = reader.watch(Body::new(http_body_util::Full::new(message.clone())), None);
    let mut pieces = Vec::new();
    while let Some(frame) = http_body_util::BodyExt::frame(&mut body).await {
        pieces.push(frame.unwrap().into_data().unwrap());
    }
    assert_eq!(pieces.concat(), message);
    drop(body);
    while pieces.pop().is_some() {
        assert_eq!(answers.bytes(), if pieces.is_empty() { 0 } else { message.len() });
    }
}

#[tokio::test(start_paused = true)]
async fn frames_that_are_left_unread_end_no_connection_until_others_need_the_room() {
    let answers = Answers::new(Limits { in_all: 16 * MIB, ..Limits::default() });
    let (unread, busy) = reader(&answers, 1, &Standing::default());
    let (held, arriving) = (busy.hold(Kind::Frame, 2 * MIB), busy.clone().reserve_frame(MIB).await);
    for _ in 0..10 {
        pass(STALL_WINDOW).await;
    }
    assert!(!unread.hang_up.is_cancelled());
    assert_eq!(answers.bytes(), 3 * MIB, "frames count");
    let (_, newcomer) = reader(&answers, 2, &Standing::default());
    assert!(finds_room(&newcomer, 10 * MIB).await.is_none());
    assert!(unread.hang_up.is_cancelled() && !unread.stalled.is_cancelled(), "ended, but not to blame");
    drop((held, arriving));
    assert!(finds_room(&newcomer, 10 * MIB).await.is_some());
    assert_eq!(answers.bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn unread_response_beside_frames_ends_the_connection_as_ever() {
    let answers = Answers::new(Limits::default());
    let (ends, reader) = reader(&answers, 1, &Standing::default());
    let _frame = reader.hold(Kind::Frame, MIB);
    pass(2 * STALL_WINDOW).await;
    assert!(!ends.hang_up.is_cancelled());
    let _answer = reader.reserve(MIB, MIB).await.made(MIB);
    pass(STALL_WINDOW).await;
    pass(STALL_WINDOW).await;
    assert!(ends.hang_up.is_cancelled() && ends.stalled.is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn frames_that_a_peer_reads_leave_nothing_counted() {
    let answers = Answers::new(Limits::default());
    let (_, reader) = reader(&answers, 1, &Standing::default());
    let message = Bytes::from(vec![7; 3 * FRAME_PIECE]);
    let mut body = reader.count_frames(Body::new(http_body_util::Full::new(message.clone())));
    let mut read = Vec::new();
    while let Some(frame) = http_body_util::BodyExt::frame(&mut body).await {
        let data = frame.unwrap().into_data().unwrap();
        assert!(data.len() <= FRAME_PIECE && answers.bytes() == message.len());
        read.extend_from_slice(&data);
    }
    assert_eq!((read, answers.bytes()), (message.to_vec(), 0));
}
