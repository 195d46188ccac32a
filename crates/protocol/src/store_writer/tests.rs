use super::*;
use std::time::Duration;

const NOW: Now = Now { monotonic: Duration::ZERO, unix_ms: 0 };

#[test]
fn writes_go_one_by_one_in_order_and_a_hanging_disk_gets_no_long_queue() {
    let mut core = StoreWriter::default();
    assert_eq!(core.handle(NOW, Input::Submit { job: 1 }), [Effect::Run(1)]);
    for job in 2..2 + MAX_WAITING as u64 {
        assert_eq!(core.handle(NOW, Input::Submit { job }), []);
    }
    assert_eq!(core.handle(NOW, Input::Submit { job: 99 }), [Effect::Refuse(99)]);
    let failed = Input::Done { job: 1, error: Some("disk full".into()) };
    assert_eq!(core.handle(NOW, failed), [Effect::Run(2)]);
    assert_eq!(core.snapshot().last_error.as_deref(), Some("disk full"));
    assert_eq!(core.handle(NOW, Input::Done { job: 2, error: None }), [Effect::Run(3)]);
    assert_eq!(core.snapshot().last_error, None);
}
