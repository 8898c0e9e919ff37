//! What people read about a rollout, as snapshots. The clock is virtual and the
//! target scripted, so every line is the same every time.

use engine::cli::render::arm_lines;
use engine::journal::narrate::{self, Narrator};
use engine::journal::status::Status;
use engine::journal::verdict::verdict;
use engine::journal::{Actor, Call, Entry, Event, Reply, exchanges};
use engine::model::{Level, MetricsQuery, Phase, Promotion};
use engine::ops::status::Seen;
use engine::target::Target;

use crate::support::guests;
use crate::support::lab::{self, Lab};

async fn story(lab: &Lab) -> String {
    let journal = lab.journal().await;
    let mut narrator = Narrator::new(&lab.header.rollout);
    let mut lines: Vec<String> = journal.iter().filter_map(|e| narrator.line(e)).collect();
    let query = MetricsQuery {
        since: journal[journal.len() - 1].at.saturating_sub(10_000),
        ..MetricsQuery::default()
    };
    let samples = lab.target.samples(&query).await.expect("simulated");
    let seen = Seen {
        observed: lab.target.peek(),
        samples,
    };
    lines.extend(arm_lines(&seen, None, usize::MAX));
    lines.push(verdict(&lab.header, &lab.status().await));
    lines.join("\n")
}

#[tokio::test]
async fn a_good_canary_tells_its_story() {
    let mut lab = Lab::new(guests::plugin("canary").await, lab::good(), lab::quick());
    lab.header.promotion = Promotion::Copy;
    lab.run().await;
    insta::assert_snapshot!(story(&lab).await);
}

#[tokio::test]
async fn a_bad_canary_tells_its_story() {
    let lab = Lab::new(guests::plugin("canary").await, lab::bad(), lab::quick());
    lab.run().await;
    insta::assert_snapshot!(story(&lab).await);
}

/// What differs in numbers only is no news, unless the strategy says it.
#[tokio::test]
async fn every_line_of_a_strategy_is_shown() {
    let lab = Lab::new(guests::plugin("canary").await, lab::good(), lab::quick());
    let mut narrator = Narrator::new(&lab.header.rollout);
    let mut line = |call: Call| {
        let event = Event::Exchanged {
            by: Actor::Strategy,
            call,
            reply: Reply::Done,
        };
        let (seq, at, epoch) = (1, 0, 1);
        let entry = Entry {
            seq,
            at,
            epoch,
            event,
        };
        narrator.line(&entry).is_some()
    };
    let note = |percent: u32| Call::Progress {
        percent,
        note: format!("{percent} requests"),
    };
    let log = |text: &str| Call::Log {
        level: Level::Warn,
        message: text.to_owned(),
    };
    assert_eq!([line(note(1)), line(note(2))], [true, false]);
    assert_eq!(
        ["accuracy 0.93", "accuracy 0.10", "accuracy 0.10"].map(|text| line(log(text))),
        [true, true, false]
    );
}

#[tokio::test]
async fn a_pause_tells_what_to_do() {
    let lab = Lab::new(guests::plugin("canary").await, lab::good(), lab::quick());
    lab.driver()
        .begin(lab.header.clone())
        .await
        .expect("begins");
    lab.signal("pause", "").await;
    lab.go_on().await;
    insta::assert_snapshot!(story(&lab).await);
}

#[tokio::test]
async fn history_has_every_call() {
    let lab = Lab::new(guests::plugin("canary").await, lab::bad(), lab::quick());
    lab.run().await;
    let journal = lab.journal().await;
    let lines: Vec<String> = exchanges(&journal).map(|e| narrate::history(&e)).collect();
    insta::assert_snapshot!(lines.join("\n"));
}

/// A journal of every released format must load for ever.
#[test]
fn journals_of_format_1_load() {
    let text = include_str!("../fixtures/journal-v1.json");
    let entries: Vec<Entry> = serde_json::from_str(text).expect("readable");
    let status = Status::of(&entries).expect("it has a header");
    assert_eq!(status.phase, Phase::Succeeded);
    assert_eq!(status.weights.share("stable"), 100.0);
    assert_eq!(status.entries as usize, entries.len());
}

/// One of each kind of entry, target and work: what is read is written again byte
/// for byte, so that no move of a type changes what older journals mean.
#[test]
fn journals_of_today_are_read_and_written_byte_for_byte() {
    let text = include_str!("../fixtures/journals-v1.jsonl");
    let mut journals: Vec<Vec<Entry>> = vec![];
    for line in text.lines() {
        let entry: Entry = serde_json::from_str(line).expect(line);
        assert_eq!(serde_json::to_string(&entry).expect("JSON"), line);
        if entry.seq == 0 {
            journals.push(vec![]);
        }
        journals.last_mut().expect("a first entry").push(entry);
    }
    let statuses: Vec<Status> = journals.iter().filter_map(|j| Status::of(j)).collect();
    let phases = [
        Phase::RolledBack,
        Phase::Succeeded,
        Phase::RolledBack,
        Phase::Succeeded,
    ];
    assert_eq!(statuses.iter().map(|s| s.phase).collect::<Vec<_>>(), phases);
    // Every question has its answer, so nothing is left out when it is told.
    let told = journals.iter().map(|j| exchanges(j).count());
    assert_eq!(told.sum::<usize>(), text.lines().count());
}
