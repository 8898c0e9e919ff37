//! The cookie that keeps a client on its arm, and what the lot behind it still tells.
//!
//! A client that brings a cookie has chosen its arm, and may do there what it likes as
//! often as it likes. So most of what it sees says nothing about the arm. But where all
//! clients have cookies, nothing would be left to see a version by that fails on their
//! second request. So a cookie carries, signed, the lot that brought its client to the arm,
//! and this lot tells a little more: **each kind of evidence once**, for ten minutes.
//!
//! A client can draw lots, keep the cookies of one arm and throw the others away. Each of
//! these draws is a request of its own, which counts for the arm that it came to, and an
//! arm with a part p of the traffic takes 1/p of them. Each cookie is then worth one piece
//! of evidence, however often it is used. What such a client can bring is in proportion to
//! its part of all new clients, and no longer to its number of requests.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::header::{COOKIE, HeaderMap, HeaderValue};
use ring::hmac;

use crate::model::Millis;

/// Its name.
const NAME: &str = "engine-arm";
/// How long a lot tells about its arm, ms. Lots that were collected for later are worth
/// nothing then, and what is remembered of them has an end.
const TELLS_MS: Millis = 600_000;
/// Lots that are remembered twice over; if there are more, the oldest are forgotten.
const LOTS_MAX: usize = 1 << 16;

/// Who chose the arm of a request.
#[derive(Debug, Clone)]
pub(super) enum ChosenBy {
    /// The balancer, by weight.
    Lot,
    /// The client, by a cookie that this balancer gave it when it drew this lot.
    Kept(Lot),
    /// The client, by a cookie whose lot tells nothing any more, or that another gave it.
    Client,
}

/// The kinds of evidence that a client can have of an arm at will.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// An answer, against which those that did not come are counted.
    Answered = 1,
    /// No answer.
    Unanswered = 2,
    /// An answer that every version gives to who asks for what no version has.
    AtWill = 4,
}

impl ChosenBy {
    pub(super) fn is_lot(&self) -> bool {
        matches!(self, Self::Lot)
    }

    /// Whether evidence of this kind counts. Where a lot tells it only once, this was the
    /// time.
    pub(super) fn tells(&self, kind: Kind) -> bool {
        match self {
            Self::Lot => true,
            Self::Kept(lot) => lot.told.is_first(lot.number, kind, lot.now),
            Self::Client => false,
        }
    }
}

/// A lot that was drawn before.
#[derive(Debug, Clone)]
pub(super) struct Lot {
    number: u64,
    /// When its client came back with it, Unix ms.
    now: Millis,
    told: Arc<Told>,
}

/// Which kinds of evidence each lot has brought.
#[derive(Debug, Default)]
struct Told(Mutex<Remembered>);

#[derive(Debug, Default)]
struct Remembered {
    young: HashMap<u64, u8>,
    /// From before `since`.
    old: HashMap<u64, u8>,
    since: Millis,
}

impl Told {
    fn is_first(&self, number: u64, kind: Kind, now: Millis) -> bool {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_sub(kept.since) >= TELLS_MS || kept.young.len() >= LOTS_MAX {
            kept.old = std::mem::take(&mut kept.young);
            kept.since = now;
        }
        let before = kept.old.get(&number).copied().unwrap_or(0);
        let told = kept.young.entry(number).or_insert(before);
        let first = *told & kind as u8 == 0;
        *told |= kind as u8;
        first
    }
}

/// Gives cookies and reads them.
#[derive(Debug)]
pub(super) struct Cookies {
    /// How long a client stays on its arm, s; 0 for no cookies.
    seconds: u32,
    key: hmac::Key,
    told: Arc<Told>,
}

impl Cookies {
    /// With a key of this balancer alone: the lots of one before it tell nothing.
    pub(super) fn new(seconds: u32) -> Self {
        Self {
            seconds,
            key: hmac::Key::new(hmac::HMAC_SHA256, &rand::random::<[u8; 32]>()),
            told: Arc::default(),
        }
    }

    pub(super) fn are_given(&self) -> bool {
        self.seconds > 0
    }

    /// The value of `set-cookie` for a client that a lot brought to an arm at `now`.
    pub(super) fn give(&self, arm: &str, now: Millis) -> Option<HeaderValue> {
        if !self.are_given() {
            return None;
        }
        let lot = format!("{arm}.{now:x}.{:x}", rand::random::<u64>());
        let cookie = format!(
            "{NAME}={lot}.{}; Path=/; Max-Age={}; HttpOnly; SameSite=Lax",
            URL_SAFE_NO_PAD.encode(hmac::sign(&self.key, lot.as_bytes())),
            self.seconds
        );
        HeaderValue::from_str(&cookie).ok()
    }

    /// The arm that a client names, and what its choice is worth at `now`.
    pub(super) fn read<'a>(
        &self,
        headers: &'a HeaderMap,
        now: Millis,
    ) -> Option<(&'a str, ChosenBy)> {
        if !self.are_given() {
            return None;
        }
        let value = value(headers)?;
        // Names of arms have no dots.
        let arm = value.split('.').next()?;
        let number = self.lot(value, now);
        let chosen_by = number.map_or(ChosenBy::Client, |number| {
            ChosenBy::Kept(Lot {
                number,
                now,
                told: self.told.clone(),
            })
        });
        Some((arm, chosen_by))
    }

    /// The number of the lot of a cookie, if this balancer drew it and it still tells.
    fn lot(&self, value: &str, now: Millis) -> Option<u64> {
        let (lot, signature) = value.rsplit_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        hmac::verify(&self.key, lot.as_bytes(), &signature).ok()?;
        let (rest, number) = lot.rsplit_once('.')?;
        let (_, drawn) = rest.rsplit_once('.')?;
        let drawn = Millis::from_str_radix(drawn, 16).ok()?;
        let tells = now.saturating_sub(drawn) < TELLS_MS;
        tells.then(|| u64::from_str_radix(number, 16).ok())?
    }
}

fn value(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(name, value)| (name == NAME).then_some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = 1_800_000_000_000;

    fn brought(cookie: &str) -> HeaderMap {
        let value = HeaderValue::from_str(cookie).expect("valid");
        HeaderMap::from_iter([(COOKIE, value)])
    }

    fn given(cookies: &Cookies, arm: &str) -> String {
        let given = cookies.give(arm, NOW).expect("on");
        let given = given.to_str().expect("text");
        given.split(';').next().expect("a pair").to_owned()
    }

    /// Which kinds a request with this cookie tells.
    fn tells(cookies: &Cookies, cookie: &str, now: Millis) -> [bool; 3] {
        let headers = brought(cookie);
        let (_, chosen_by) = cookies.read(&headers, now).expect("an arm");
        [Kind::Answered, Kind::Unanswered, Kind::AtWill].map(|kind| chosen_by.tells(kind))
    }

    #[test]
    fn the_cookie_is_found_among_others() {
        let headers = brought("a=b; engine-arm=canary; c=d");
        assert_eq!(value(&headers), Some("canary"));
        assert_eq!(value(&brought("engine-armx=1")), None);
        let cookies = Cookies::new(60);
        let own = brought(&format!("a=b; {}; c=d", given(&cookies, "canary")));
        let (arm, chosen_by) = cookies.read(&own, NOW).expect("found");
        assert_eq!(arm, "canary");
        assert!(matches!(chosen_by, ChosenBy::Kept(_)));
        assert!(Cookies::new(0).read(&own, NOW).is_none());
        assert!(Cookies::new(0).give("canary", NOW).is_none());
    }

    #[test]
    fn a_lot_tells_each_kind_once() {
        let cookies = Cookies::new(60);
        let (one, other) = (given(&cookies, "canary"), given(&cookies, "canary"));
        assert_eq!(tells(&cookies, &one, NOW), [true; 3]);
        assert_eq!(tells(&cookies, &one, NOW + 1), [false; 3]);
        assert_eq!(tells(&cookies, &other, NOW + 1), [true; 3]);
        for minute in 1..=20 {
            let later = NOW + 60_000 * minute;
            assert_eq!(tells(&cookies, &one, later), [false; 3], "{minute}");
            // Others come meanwhile.
            tells(&cookies, &given(&cookies, "stable"), later);
        }
    }

    #[test]
    fn a_lot_tells_for_ten_minutes() {
        let cookies = Cookies::new(60);
        let early = given(&cookies, "canary");
        assert_eq!(tells(&cookies, &early, NOW + TELLS_MS - 1), [true; 3]);
        let late = given(&cookies, "canary");
        assert_eq!(tells(&cookies, &late, NOW + TELLS_MS), [false; 3]);
        // A machine's clock may go back.
        assert_eq!(tells(&cookies, &late, NOW - 5_000), [true; 3]);
    }

    #[test]
    fn a_cookie_that_the_balancer_did_not_give_tells_nothing_and_keeps_its_client() {
        let cookies = Cookies::new(60);
        let own = given(&cookies, "stable");
        let lies = [
            "engine-arm=canary".to_owned(),
            "engine-arm=canary.".to_owned(),
            "engine-arm=canary.1.2.3".to_owned(),
            given(&Cookies::new(60), "canary"),
            // Another arm, time and number under a signature that is good for neither.
            own.replace("stable", "canary"),
            own.replacen(".1", ".2", 1),
            own[..own.len() - 1].to_owned(),
            format!("{own}0"),
        ];
        for lie in lies {
            assert_ne!(lie, own);
            assert_eq!(tells(&cookies, &lie, NOW), [false; 3], "{lie}");
            let headers = brought(&lie);
            let (arm, _) = cookies.read(&headers, NOW).expect("an arm");
            assert!(["canary", "stable"].contains(&arm), "{lie}");
        }
    }

    #[test]
    fn what_is_remembered_has_an_end() {
        let told = Told::default();
        for number in 0..5 * LOTS_MAX as u64 {
            assert!(told.is_first(number, Kind::Unanswered, NOW));
        }
        let kept = told.0.lock().expect("no panic");
        assert!(kept.young.len() + kept.old.len() <= 2 * LOTS_MAX);
    }
}
