//! Writing, sealing, closing, reopening.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::as_conversions,
    reason = "tests fail by panicking"
)]

mod support;

use govrun_audit::*;
use govrun_verdict::Durability;
use support::*;

#[test]
fn a_log_of_every_record_type_reopens_clean_and_goes_on() {
    let site = Site::new();
    let approver = ApproverKey::generate(site.root.path(), "alice").unwrap();
    let clock = TestClock::new();
    let log = Log::open(&site.logs(), &site.keys, clock.clone()).unwrap();
    let id = log.id();
    record_everything(&site, &log, &clock, &approver, Size::Full);
    log.close().unwrap();
    let again = site.open();
    assert_eq!(again.id(), id, "a free log of the same keys is taken up again");
    record_n(&again, 3, Durability::Disk);
    again.close().unwrap();
    let text = std::fs::read_to_string(site.segment(id)).unwrap();
    assert!(!text.contains("\"t\":\"recover\""), "a closed log needs no recovery");
}
