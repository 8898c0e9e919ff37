//! Where a way back goes: to the arm that a person names, the one that is called stable, or
//! the one that the history of the target says is it.

use super::advice::Ask;
use super::app::App;
use super::error::{Error, Result};
use crate::journal::{Header, Work};
use crate::model::{End, Promotion, Role, Traffic, Weights};
use crate::store::{Cursor, Page};

/// Where the way back goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Home {
    /// The arm.
    pub(super) arm: String,
    /// Why it is this one, as the end of a sentence.
    pub(super) why: String,
}

/// The arm that a person names, if the target has it; without a name, the arm called
/// stable, or the one that the history of this target says is it.
pub(super) async fn home(
    app: &App,
    identity: &str,
    live: &Traffic,
    to: Option<&str>,
) -> Result<Home> {
    if let Some(arm) = to {
        return match live.names().iter().any(|name| name == arm) {
            true => Ok(Home {
                arm: arm.to_owned(),
                why: "it was named".to_owned(),
            }),
            false => Err(Error::usage(format!(
                "there is no arm {arm:?}; there are {}",
                live.names().join(" and ")
            ))),
        };
    }
    if let Some(arm) = live.weights.naming().stable() {
        return Ok(Home {
            arm: arm.to_owned(),
            why: "its name says that it is the stable arm".to_owned(),
        });
    }
    refuse_without_history(app, live)?;
    if let Some(home) = home_of_history(app, identity).await? {
        return Ok(home);
    }
    refuse_without_history(app, live)?;
    // The arm with more traffic may well be the candidate, so it is not taken.
    Err(say_which(
        live,
        format!(
            "no arm is called stable and no earlier rollout says which one is; now {}",
            live.weights.shares()
        ),
    ))
}

/// The arm where a way back would go now, if anything says which.
pub(super) async fn home_known(app: &App, identity: &str, live: &Traffic) -> Option<String> {
    Some(home(app, identity, live, None).await.ok()?.arm)
}

/// Refuses to name the stable arm if the history that would name it cannot be read.
fn refuse_without_history(app: &App, live: &Traffic) -> Result<()> {
    let Some(why) = app.unwritten() else {
        return Ok(());
    };
    Err(say_which(
        live,
        format!(
            "no arm is called stable, and the history that says which one is cannot be read: {why}"
        ),
    ))
}

/// The error that a person must name the arm.
fn say_which(live: &Traffic, why: String) -> Error {
    live.names()
        .into_iter()
        .fold(Error::usage(why), |error, arm| {
            let does = format!("takes all traffic to {arm}");
            error.ask(Ask::RollbackTo(arm), does)
        })
}

/// A move of the traffic by hand.
struct ByHand {
    /// The arm that had all traffic before; none if no arm had.
    from: Option<String>,
    /// Whether that arm had less of it afterwards.
    left: bool,
    /// What was done, as the end of a sentence.
    what: String,
}

/// The arm that the history of a target says is stable, from its newest rollouts on. What
/// people have moved by hand since the last rollout is taken into account.
pub(super) async fn home_of_history(app: &App, identity: &str) -> Result<Option<Home>> {
    let mut page = Page::newest(Some(identity), 100);
    let mut by_hand = vec![];
    loop {
        let rows = app.store.history(&page).await?;
        let Some(last) = rows.last() else {
            return Ok(home_after(None, &by_hand));
        };
        page.after = Some(Cursor::at(last));
        for row in &rows {
            let Some(End::Promoted | End::RolledBack | End::Done) = row.end else {
                continue;
            };
            let Some(header) = app.store.header(&row.rollout).await? else {
                continue;
            };
            match said(&header, row.end) {
                Said::Nothing => {}
                Said::ByHand(one) => by_hand.push(one),
                Said::Home(home) => return Ok(home_after(Some(home), &by_hand)),
            }
        }
        // People may move it by hand for years without a rollout.
        if by_hand.iter().any(|one| one.from.is_some()) {
            return Ok(home_after(None, &by_hand));
        }
    }
}

/// What an entry of the history says about the stable arm.
enum Said {
    Nothing,
    ByHand(ByHand),
    Home(Home),
}

fn said(header: &Header, end: Option<End>) -> Said {
    let id = &header.rollout;
    let at = crate::journal::time(header.created);
    let home = |arm: &str, why: String| {
        Said::Home(Home {
            arm: arm.to_owned(),
            why,
        })
    };
    match (&header.work, end) {
        // An earlier version journaled a rollback like this: the arm that it gave
        // all traffic to is the stable one.
        (Work::Verb { weights, actor, .. }, Some(End::Done)) if header.work.goes_back() => {
            all_on(weights).map_or(Said::Nothing, |arm| {
                home(
                    &arm,
                    format!("the way back that {actor} took at {at} went there"),
                )
            })
        }
        (
            Work::Verb {
                verb,
                actor,
                weights,
            },
            Some(End::Done),
        ) => {
            let from = all_on(&header.baseline);
            Said::ByHand(ByHand {
                left: from.as_ref().is_some_and(|arm| weights.share(arm) < 100.0),
                from,
                what: format!("the {verb} of {actor} at {at}"),
            })
        }
        (Work::Verb { actor, .. }, _) => home(
            header.arm(Role::Stable),
            format!("the way back that {actor} took at {at} went there"),
        ),
        // The change of a stack has no stable arm.
        (Work::StackChange { .. }, _) => Said::Nothing,
        // What was undone is not what users go back to.
        (Work::Undo { of, .. }, Some(End::Promoted)) => home(
            header.arm(match header.promotion {
                Promotion::Copy | Promotion::CopyWhole => Role::Stable,
                Promotion::Swap => Role::Candidate,
            }),
            format!("rollout {id} has undone {of} there"),
        ),
        (Work::Undo { .. }, _) => Said::Nothing,
        (Work::Strategy(_), Some(End::Promoted)) if header.promotion == Promotion::Swap => home(
            header.arm(Role::Stable),
            format!("it had all traffic before rollout {id} was promoted"),
        ),
        (Work::Strategy(_), _) => home(
            header.arm(Role::Stable),
            format!("it is the stable arm of rollout {id}, the last one here"),
        ),
    }
}

/// The stable arm, by the last rollout and by what people did by hand since, newest first.
/// Who has moved the traffic away from the stable arm, and on to another one, has made
/// that one stable; who has only moved it back to the stable arm has not.
fn home_after(last: Option<Home>, by_hand: &[ByHand]) -> Option<Home> {
    let left = |arm: &str| {
        let mut moves = by_hand.iter();
        moves.any(|one| one.left && one.from.as_deref() == Some(arm))
    };
    if let Some(home) = last
        && !left(&home.arm)
    {
        return Some(home);
    }
    let mut moves = by_hand.iter();
    let newest = moves
        .find(|one| one.left)
        .or_else(|| by_hand.iter().find(|one| one.from.is_some()))?;
    Some(Home {
        arm: newest.from.clone()?,
        why: format!("it had all traffic before {}", newest.what),
    })
}

/// The arm that has all traffic; `None` if none has.
pub(super) fn all_on(weights: &Weights) -> Option<String> {
    let mut all = weights.0.iter().map(|w| &w.arm);
    all.find(|arm| weights.share(arm) >= 100.0).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_only_goes_home_by_hand_does_not_make_another_arm_stable() {
        let moved = |from: &str, left| ByHand {
            from: (!from.is_empty()).then(|| from.to_owned()),
            left,
            what: format!("a move from {from}"),
        };
        let blue = || {
            Some(Home {
                arm: "blue".to_owned(),
                why: "a rollout".to_owned(),
            })
        };
        let arm = |last: Option<Home>, moves: &[ByHand]| {
            home_after(last, moves).map(|home| (home.arm, home.why))
        };
        let says = |arm: &str, why: &str| Some((arm.to_owned(), why.to_owned()));
        // A rollout was promoted from blue to green, and a person went back at once.
        let back = [moved("green", true)];
        assert_eq!(arm(blue(), &back), says("blue", "a rollout"));
        // In steps it is the same.
        let steps = [moved("", false), moved("green", true)];
        assert_eq!(arm(blue(), &steps), says("blue", "a rollout"));
        // Who has left blue too is taken back to where he was before.
        let on = [moved("blue", true), moved("green", true)];
        assert_eq!(
            arm(blue(), &on),
            says("blue", "it had all traffic before a move from blue")
        );
        let round = [moved("green", true), moved("blue", true)];
        assert_eq!(
            arm(blue(), &round),
            says("green", "it had all traffic before a move from green")
        );
        // Without a rollout the last move is taken back, and one that was none is not.
        assert_eq!(
            arm(None, &round),
            says("green", "it had all traffic before a move from green")
        );
        let none = [moved("green", false), moved("blue", true)];
        assert_eq!(
            arm(None, &none),
            says("blue", "it had all traffic before a move from blue")
        );
        assert_eq!(
            arm(None, &[moved("green", false)]),
            says("green", "it had all traffic before a move from green")
        );
        assert_eq!(arm(None, &[moved("", false)]), None);
        assert_eq!(arm(None, &[]), None);
    }
}
