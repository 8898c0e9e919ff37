//! The live view, in three widths of a terminal, with images as long as people have them.

use engine::cli::render::{arm_lines, head, measured_when, undriven};
use engine::journal::status::{Decision, Status, Waiting};
use engine::journal::{Actor, Call, Entry, Event, Header, Reply, Work};
use engine::model::aws::{Access, Find, looked_for};
use engine::model::target::TargetSpec;
use engine::model::{
    Command, Decider, Decision as Judged, Deployment, Finding, Goal, Hold, Latency, Millis,
    Observed, ObservedArm, Phase, PlannedStep, Release, Role, Sample, Source, Wake, Weights,
};
use engine::ops::status::Seen;

use crate::support::fixture;

/// When everything is looked at, Unix ms.
const NOW: Millis = 1_300_000;
const OLD: &str =
    "123456789012.dkr.ecr.eu-west-1.amazonaws.com/recommendations/model-server:2026-11-20-a1b2c3d";
const NEW: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/recommendations/model-server:2026-11-27-e4f5a6b-rc1";

/// A rollout at 25 %, and its arms of which the candidate has this p99 (ms) and these
/// errors.
struct Scene {
    header: Header,
    status: Status,
    seen: Seen,
}

impl Scene {
    fn new(p99: f64, errors: u32) -> Self {
        let mut header = fixture::header();
        header.rollout = "canary-s96k2nw7".to_owned();
        if let Work::Strategy(pin) = &mut header.work {
            pin.steps = [5, 25, 50, 95].map(step).into();
        }
        let mut status = Status::new(&header);
        status.phase = Phase::Progressing;
        status.weights = Weights::of([("stable", 75), ("canary", 25)]);
        (status.percent, status.exposed_since) = (34, Some(1_060_000));
        (status.created, status.updated) = (1_000_000, NOW - 2_000);
        (status.percent_at, status.going_since) = (NOW, (1_000_000, 0));
        "step 2/4 at 25 %: no sign that it is worse (suspicion 0 of 100), 3 of 5 to 12 samples"
            .clone_into(&mut status.note);
        status.finding = Some(finding(0.0));
        status.waiting = Some(Waiting {
            until: NOW + 8_000,
            signals: vec![],
        });
        let arms = vec![arm("stable", OLD, 75), arm("canary", NEW, 25)];
        let samples = vec![
            sample("stable", 7_200, 7, 81.0),
            sample("canary", 2_400, errors, p99),
        ];
        Self {
            header,
            status,
            seen: Seen {
                observed: Observed {
                    arms,
                    sticky: false,
                    address: "http://shop".to_owned(),
                    others: vec![],
                },
                samples,
            },
        }
    }

    /// The view at 80, 100 and 130 columns. No line is wider than its terminal.
    fn views(&self) -> String {
        let mut views = vec![];
        for width in [80, 100, 130] {
            let mut lines = head(&self.header, &self.status, NOW, width);
            let stable = Some(self.header.arm(Role::Stable));
            lines.extend(arm_lines(&self.seen, stable, width));
            for line in &lines {
                assert!(console_width(line) <= width, "{width}: {line}");
            }
            views.extend(["-".repeat(width), lines.join("\n"), String::new()]);
        }
        views.join("\n")
    }
}

fn console_width(line: &str) -> usize {
    line.chars().count()
}

fn step(share: u32) -> PlannedStep {
    PlannedStep {
        share,
        seconds: None,
        needs_approval: false,
    }
}

fn finding(log_evidence: f64) -> Finding {
    Finding {
        until: NOW,
        log_evidence,
        log_limit: 100.0_f64.ln(),
        decision: Judged::Stay,
        excess_requests: 0.0,
        streams: vec![],
        explanation: String::new(),
    }
}

fn arm(name: &str, version: &str, weight: u32) -> ObservedArm {
    ObservedArm {
        name: name.to_owned(),
        release: Release {
            version: version.to_owned(),
            source: Source::Image(version.to_owned()),
        },
        weight,
        healthy: 12,
        total: 12,
        health_reason: None,
        tasks: Some(12),
        deployment: Deployment::Steady,
        since: None,
        spoiled: 0,
        unanswered: 0,
        sent_again: 0,
    }
}

fn sample(arm: &str, requests: u32, errors: u32, p99: f64) -> Sample {
    Sample {
        arm: arm.to_owned(),
        zone: None,
        start: NOW - 60_000,
        period_ms: 60_000,
        requests,
        errors,
        client_errors: 0,
        over: vec![],
        latency: Some(Latency {
            mean: 20.0,
            p50: 18.0,
            p90: 50.0,
            p95: 60.0,
            p99,
        }),
        whole: None,
        cpu: None,
        memory: None,
        healthy: None,
    }
}

#[test]
fn a_good_version_is_watched() {
    insta::assert_snapshot!(Scene::new(79.0, 2).views());
}

#[test]
fn a_suspicious_version_is_watched() {
    let mut scene = Scene::new(310.0, 40);
    "step 2/4 at 25 %: holds, suspicious (12 of 100, and at 100 it goes back)"
        .clone_into(&mut scene.status.note);
    scene.status.finding = Some(finding(12.0_f64.ln()));
    insta::assert_snapshot!(scene.views());
}

#[test]
fn a_person_is_waited_for() {
    let mut scene = Scene::new(79.0, 2);
    "step 3/4 at 50 %: waits for an approval".clone_into(&mut scene.status.note);
    scene.status.waiting = Some(Waiting {
        until: NOW + 3_540_000,
        signals: vec![Command::APPROVE.to_owned()],
    });
    insta::assert_snapshot!(scene.views());
}

#[test]
fn a_rollout_holds_because_somebody_moved_the_traffic() {
    let mut scene = Scene::new(79.0, 2);
    scene.status.phase = Phase::Paused;
    scene.status.hold = Some(Hold::ForeignChange {
        expected: scene.status.weights.clone(),
        found: Weights::of([("stable", 50), ("canary", 50)]),
        place: None,
    });
    scene.seen.observed.arms[1].health_reason =
        Some("Health checks failed with these codes: [502]".to_owned());
    scene.seen.observed.arms[1].healthy = 10;
    insta::assert_snapshot!(scene.views());
}

#[test]
fn the_first_metrics_of_cloudwatch_are_awaited() {
    let mut scene = Scene::new(79.0, 2);
    scene.header.sample_period_ms = 60_000;
    scene.header.target = TargetSpec::Aws(Box::new(looked_for(Access::default(), Find::default())));
    scene.status.finding = None;
    scene.status.exposed_since = Some(NOW - 60_000);
    scene.status.note = "step 1/4 at 5 %: waits for samples; none has come yet".to_owned();
    scene.status.weights = Weights::of([("stable", 95), ("canary", 5)]);
    scene.seen.samples.clear();
    insta::assert_snapshot!(scene.views());
}

/// A ladder that fits the traffic is not the one that was said before there was any.
#[test]
fn steps_that_were_not_announced_are_shown_as_they_are_taken() {
    let shown = |climbed: &[f64], share: u32| {
        let mut scene = Scene::new(79.0, 2);
        scene.status.climbed = climbed.to_vec();
        scene.status.weights = Weights::of([("stable", 1_000 - share), ("canary", share)]);
        let lines = head(&scene.header, &scene.status, NOW, 130).join("\n");
        let (_, traffic) = lines.split_once("traffic ").expect("the shares");
        let (shares, _) = traffic.split_once(" %").expect("percent");
        shares.to_owned()
    };
    assert_eq!(shown(&[0.2], 2), "▸5 25 50 95");
    assert_eq!(shown(&[0.2, 5.0, 25.0], 250), "✓5 ▸25 50 95");
    assert_eq!(shown(&[0.2, 1.0, 10.0], 100), "✓0.2 ✓1 ▸10 … 95");
    assert_eq!(shown(&[1.0, 10.0, 50.0], 500), "✓1 ✓10 ▸50 … 95");
    assert_eq!(shown(&[1.0, 10.0, 95.0], 950), "✓1 ✓10 ▸95");
    // Taken back for a while.
    assert_eq!(shown(&[1.0, 10.0], 2), "▸0.2 … 95");
}

#[test]
fn a_decision_shows_its_reason_alone() {
    let mut scene = Scene::new(310.0, 400);
    scene.status.phase = Phase::RollingBack;
    scene.status.decision = Some(Decision {
        goal: Goal::RollBack,
        by: Decider::Strategy,
        reason: "step 2/4 at 25 %: it is worse (a version as good as stable looks like this in at most 1 of 1,358 rollouts); errors: 40 of 2,400 (1.7 %) against 7 of 7,200 (0.097 %), 17.1 times as many in the last 10 min".to_owned(),
    });
    insta::assert_snapshot!(scene.views());
}

/// The rates stand beside shares of now, and beside the version of now.
#[test]
fn rates_say_when_they_were_measured_and_are_no_earlier_version_s() {
    let mut scene = Scene::new(79.0, 240);
    let errors = |scene: &Scene| scene.seen.rates("canary").error_percent;
    let said = |scene: &Scene, moved| measured_when(&scene.seen, moved, NOW).join("\n");
    assert_eq!(errors(&scene), Some(10.0));
    assert_eq!(said(&scene, None), "  the rates are of the last 1m");
    assert_eq!(
        said(&scene, Some(NOW - 2_000)),
        "  the rates are of the last 1m; the traffic was moved 2s ago"
    );
    let before = Some(NOW - 90_000);
    assert_eq!(said(&scene, before), said(&scene, None), "that is known");

    // CloudWatch comes late.
    for sample in &mut scene.seen.samples {
        sample.start -= 180_000;
    }
    assert_eq!(said(&scene, None), "  the rates are of 1m until 3m ago");

    // The candidate got its version within that time.
    scene.seen.observed.arms[1].since = Some(NOW - 200_000);
    assert_eq!(errors(&scene), None, "another version made these");
    assert!(
        said(&scene, None).contains("\n  canary has run model-server:2026-11-27-e4f5a6b-rc1 for 3m 20s, and its rates are of that time alone"),
        "{}",
        said(&scene, None)
    );
    scene.seen.observed.arms[1].since = Some(NOW - 240_000);
    assert_eq!(
        errors(&scene),
        Some(10.0),
        "it was there from the first second on"
    );
}

/// What is left counts down, and a wait of a second is not worth a word.
#[test]
fn the_time_that_is_left_does_not_grow() {
    let mut scene = Scene::new(79.0, 2);
    scene.status.percent_at = NOW - 10_000;
    let mut said = |ms: Millis| {
        scene.status.waiting = Some(Waiting {
            until: NOW + ms + 1_000,
            signals: vec![],
        });
        scene.status.updated = NOW + ms;
        head(&scene.header, &scene.status, NOW + ms, 130).join("\n")
    };
    let now = said(0);
    assert!(now.contains("about 9m 12s left"), "{now}");
    assert!(!now.contains("next look"), "{now}");
    assert!(said(5_000).contains("about 9m 7s left"), "{}", said(5_000));
    // The estimate was wrong, so nothing is told.
    assert!(!said(600_000).contains(" left"), "{}", said(600_000));
}

/// An approval that was given is waited for no more, and the time that a person took says
/// nothing about the time that is left.
#[test]
fn an_approval_that_was_given_is_neither_awaited_nor_counted() {
    let header = fixture::header();
    let mut status = Status::new(&header);
    let began = header.created;
    let mut seq = 0;
    let mut tell = |status: &mut Status, at: Millis, event: Event| {
        let (at, epoch) = (began + at, 1);
        status.apply(&Entry {
            seq,
            at,
            epoch,
            event,
        });
        seq += 1;
    };
    let progress = |percent: u32, note: &str| Event::Exchanged {
        by: Actor::Strategy,
        call: Call::Progress {
            percent,
            note: note.to_owned(),
        },
        reply: Reply::Done,
    };
    tell(&mut status, 0, Event::Started(Box::new(header.clone())));
    tell(&mut status, 1_000, progress(10, "waits for an approval"));
    let asked = Event::Asked {
        by: Actor::Strategy,
        call: Call::Wait {
            seconds: 86_400,
            signals: vec![Command::APPROVE.to_owned()],
        },
        before: None,
        deadline: Some(began + 86_400_000),
    };
    tell(&mut status, 1_000, asked);
    let shown = |status: &Status, at: Millis| head(&header, status, began + at, 130).join("\n");
    let waits = shown(&status, 5_000);
    assert!(waits.contains("waits for an approval"), "{waits}");
    assert!(waits.contains("`engine approve"), "{waits}");
    // A person took an hour.
    let approve = Command::Approve {
        comment: String::new(),
    };
    let answered = Event::Answered {
        by: Actor::Strategy,
        of: 2,
        reply: Reply::Woke(Wake::Signal(approve.signal("1".to_owned(), "uid 0"))),
        recovered: false,
    };
    tell(&mut status, 3_600_000, answered);
    let goes_on = shown(&status, 3_600_250);
    for past in ["approv", "24h", " left"] {
        assert!(!goes_on.contains(past), "{past}: {goes_on}");
    }
    tell(&mut status, 3_610_000, progress(40, "bakes"));
    let bakes = shown(&status, 3_610_000);
    assert!(bakes.contains("bakes"), "{bakes}");
    assert!(bakes.contains("40 % done"), "{bakes}");
    assert!(bakes.contains("about 20s left"), "{bakes}");
}

/// A rollout whose process has died: what was under way is no promise.
#[test]
fn what_nobody_drives_promises_nothing() {
    let scene = Scene::new(79.0, 2);
    let said = |lines: Vec<String>| lines.join("\n");
    let driven = said(head(&scene.header, &scene.status, NOW, 80));
    for promise in ["next look in 8s", " left", "so far"] {
        assert!(driven.contains(promise), "{promise}: {driven}");
    }
    let nobodys = said(undriven(&scene.header, &scene.status, false, NOW, 80));
    for promise in ["next look", " left", "so far"] {
        assert!(!nobodys.contains(promise), "{promise}: {nobodys}");
    }
    let (first, rest) = nobodys.split_once('\n').expect("several lines");
    assert!(first.contains("no process drives it"), "{first}");
    assert!(
        rest.trim_start()
            .starts_with("`engine resume canary-s96k2nw7` goes on"),
        "{rest}"
    );
    assert!(rest.contains("nothing has happened for 2s"), "{rest}");
}
