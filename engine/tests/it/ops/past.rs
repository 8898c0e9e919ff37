//! `explain`, `replay`, `what-if`, `export` and `import`.

use engine::hindsight::file;
use engine::hindsight::replay::Fit;
use engine::journal::{Entry, Event};
use engine::model::{Decider, End, Goal, Verdict};
use engine::ops::Kind;
use engine::ops::past::{
    Exported, Imported, Journal, ReplayRequest, WhatIfRequest, explain, export, import, replay,
    what_if,
};
use engine::ops::pin::PinRequest;
use engine::store::Store;

use crate::support::app::{TestApp, refused, texts};
use crate::support::guests::{self, guest_path};
use crate::support::lab::{self, ID, Lab};

/// A canary that was taken back, in the store of an app.
async fn taken_back() -> (TestApp, Lab) {
    let canary = guests::plugin("canary").await;
    let lab = Lab::new(canary, lab::bad(), lab::quick());
    lab.run().await;
    let test = TestApp::surrounded(<_>::default());
    test.store.plant(ID, lab.journal().await);
    (test, lab)
}

#[tokio::test]
async fn there_is_no_past_without_rollouts() {
    let test = TestApp::surrounded(<_>::default());
    refused(
        explain(&test.app, None).await,
        Kind::Usage,
        &["there is no rollout yet"],
    );
    refused(
        explain(&test.app, Some("nobody")).await,
        Kind::Usage,
        &["no rollout \"nobody\""],
    );
    refused(
        Journal::of(&test.app, "missing.journal").await,
        Kind::Usage,
        &["failed to read journal missing.journal"],
    );
}

#[tokio::test]
async fn a_rollout_is_explained_and_replayed() {
    let (test, _) = taken_back().await;
    let explained = explain(&test.app, Some(ID)).await.expect("known");
    assert_eq!(explained.header.rollout, ID);
    assert!(
        explained
            .steps
            .iter()
            .any(|step| step.did.starts_with("set-weights"))
    );
    let with = |guest: Option<&str>| ReplayRequest {
        rollout: ID.to_owned(),
        plugin: guest.map(guest_path),
        pins: PinRequest::default(),
    };
    let replayed = replay(&test.app, &with(Some("canary"))).await;
    let replayed = replayed.expect("a strategy");
    assert_eq!((replayed.fit, replayed.differs_at), (Fit::Same, None));
    assert!(!replayed.same_bytes, "the lab pins no digest");
    let replayed = replay(&test.app, &with(Some("blue-green"))).await;
    let replayed = replayed.expect("a strategy");
    assert!(replayed.differs_at.is_some(), "{replayed:?}");
    refused(
        replay(&test.app, &with(None)).await,
        Kind::Usage,
        &["is not here any more; name the plugin"],
    );
}

#[tokio::test]
async fn other_parameters_are_compared_with_what_was_decided() {
    let (test, _) = taken_back().await;
    let request = WhatIfRequest {
        rollouts: vec![ID.to_owned()],
        plugin: Some(guest_path("canary")),
        set: texts(&["steps=5,100"]),
        ..WhatIfRequest::default()
    };
    let mut told = vec![];
    let asked = what_if(&test.app, &request, &mut |answer, of| {
        told.push((answer, of))
    })
    .await;
    assert_eq!(asked, Ok(()));
    let [(Ok(compared), 1)] = &told[..] else {
        panic!("{told:?}");
    };
    assert_eq!(compared.recorded.verdict, Some(Verdict::RolledBack));
    let (_, first) = &compared.answer.weights[0];
    assert_eq!(first.share("canary"), 5.0, "it was 10 % then");
    let nothing = WhatIfRequest {
        all: true,
        ..WhatIfRequest::default()
    };
    let nobody = TestApp::surrounded(<_>::default());
    let asked = what_if(&nobody.app, &nothing, &mut |_, _| ()).await;
    refused(asked, Kind::Usage, &["no rollout is named"]);
}

/// What a person ended was no decision of a strategy, so none can differ from it.
#[tokio::test]
async fn what_a_person_ended_is_not_compared() {
    let (test, lab) = taken_back().await;
    let mut entries = lab.journal().await;
    let finished = |e: &Entry| matches!(e.event, Event::Finished(_));
    let at = entries.iter().position(finished).expect("a verdict");
    entries.truncate(at);
    let last = entries.last().expect("a journal").clone();
    for (after, event) in [
        Event::Decided {
            goal: Goal::RollBack,
            by: Decider::Person("ann".to_owned()),
            reason: "aborted by ann".to_owned(),
            signal: None,
        },
        Event::Ended {
            end: End::RolledBack,
            reason: "aborted by ann".to_owned(),
        },
    ]
    .into_iter()
    .enumerate()
    {
        entries.push(Entry {
            seq: last.seq + 1 + u32::try_from(after).expect("small"),
            event,
            ..last.clone()
        });
    }
    let file = test.write("by-a-person.journal", file::write(&entries));
    let request = WhatIfRequest {
        rollouts: texts(&[ID, file.to_str().expect("text")]),
        plugin: Some(guest_path("canary")),
        ..WhatIfRequest::default()
    };
    let mut told = vec![];
    let asked = what_if(&test.app, &request, &mut |answer, _| told.push(answer)).await;
    assert_eq!(asked, Ok(()));
    let [Ok(by_strategy), Ok(by_person)] = &told[..] else {
        panic!("{told:?}");
    };
    assert_eq!(by_strategy.recorded.by, Some(Decider::Strategy));
    assert!(!by_strategy.recorded.is_of_others(&by_strategy.answer.end));
    let ann = Decider::Person("ann".to_owned());
    assert_eq!(by_person.recorded.by, Some(ann));
    assert_eq!(by_person.recorded.verdict, Some(Verdict::RolledBack));
    assert!(by_person.recorded.is_of_others(&by_person.answer.end));
    assert!(!by_person.differs(), "{:?}", by_person.answer.end);
}

#[tokio::test]
async fn a_journal_goes_from_one_store_to_another_once() {
    let (test, lab) = taken_back().await;
    let place = test.at("x.journal");
    let entries = lab.journal().await;
    let exported = export(&test.app, ID, Some(place.clone())).await;
    assert_eq!(
        exported,
        Ok(Exported {
            rollout: ID.to_owned(),
            file: place.clone(),
            entries: entries.len()
        })
    );
    let other = TestApp::surrounded(<_>::default());
    let rollout = ID.to_owned();
    assert_eq!(
        import(&other.app, &place).await,
        Ok(Imported::New {
            rollout: rollout.clone(),
            entries: entries.len()
        })
    );
    assert_eq!(
        import(&other.app, &place).await,
        Ok(Imported::Known {
            rollout,
            entries: entries.len()
        })
    );
    assert!(explain(&other.app, None).await.is_ok());

    let half = other.write("half.journal", file::write(&entries[..entries.len() - 1]));
    refused(
        import(&other.app, &half).await,
        Kind::Usage,
        &["half.journal", "has not ended"],
    );
    let text = file::write(&entries);
    let cut = other.write("cut.journal", &text[..text.len() / 2]);
    refused(
        import(&other.app, &cut).await,
        Kind::Usage,
        &["cut.journal", "cut off"],
    );
    let third: &dyn Store = other.app.store.as_ref();
    let kept = third.load(ID, 0).await.expect("memory");
    assert_eq!(kept.len(), entries.len(), "nothing was overwritten");
}
