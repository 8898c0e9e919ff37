//! A bake: a look at every sample until the time is over and enough was seen.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::gate::{Judgement, Limits, Window};
use crate::{Error, Level, Outcome, Rollout, Sample, Wake, inconclusive, rolled_back};

/// Failed reads of the metrics in a row before the strategy gives up.
const BLIND_SAMPLES_MAX: u32 = 10;

/// What to do when a bake is over and too few requests came: wait for more
/// (hold), take the traffic back (rollback), or ask a person (pause).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum OnNoData {
    Hold,
    Rollback,
    Pause,
}

/// One bake.
#[derive(Debug, Clone)]
pub struct Bake {
    /// What precedes every note, such as `step 2/4 at 25 %`.
    pub title: String,
    /// Its least time.
    pub time: Duration,
    /// The limits for the candidate.
    pub limits: Limits,
    /// What to do without enough requests.
    pub on_no_data: OnNoData,
    /// Compare with the stable arm over this time before the bake, instead of during
    /// the bake: for a stable arm without traffic.
    pub history: Option<Duration>,
    /// Percent of the whole rollout at the start and at the end of the bake.
    pub percent: (f64, f64),
}

impl Bake {
    /// Runs the bake. `None` means that the candidate kept to the limits, or that a
    /// person said `promote`; an outcome ends the rollout.
    ///
    /// # Errors
    /// The metrics could not be read for long, which says nothing about the
    /// candidate.
    pub fn run(&self, rollout: &mut Rollout) -> Result<Option<Outcome>, Error> {
        let (stable, candidate) = (rollout.stable().clone(), rollout.candidate().clone());
        let since = rollout.now();
        let from = self
            .history
            .map_or(since, |h| (since - h.as_secs_f64() * 1_000.0).max(0.0));
        let seconds = self.time.as_secs_f64().max(f64::MIN_POSITIVE);
        let mut blind = 0;
        loop {
            let hurried = matches!(rollout.wait(rollout.sample_period()), Wake::Signal(_));
            let part = ((rollout.now() - since) / 1_000.0 / seconds).min(1.0);
            let samples = match rollout.samples(from) {
                Ok(samples) => samples,
                Err(error) if blind + 1 >= BLIND_SAMPLES_MAX => {
                    return Err(Error(format!(
                        "could not read the metrics {BLIND_SAMPLES_MAX} times in a row: {}",
                        error.message
                    )));
                }
                Err(_) => {
                    blind += 1;
                    continue;
                }
            };
            blind = 0;
            let (now, before): (Vec<Sample>, Vec<Sample>) =
                samples.into_iter().partition(|s| s.start >= since);
            let reference = if self.history.is_some() {
                &before
            } else {
                &now
            };
            let seen = Window::of(&now, &candidate);
            let judgement = self.limits.judge(&seen, &Window::of(reference, &stable));
            let title = &self.title;
            match judgement {
                Judgement::Bad(why) => return Ok(Some(rolled_back(format!("{title}: {why}")))),
                _ if hurried => {
                    rollout.log(Level::Info, &format!("{title}: a person promoted it early"));
                    return Ok(None);
                }
                Judgement::NotEnough(why) if part >= 1.0 => match self.on_no_data {
                    OnNoData::Hold => {
                        let note = format!("{title}: holds, {why}; needs traffic to go on");
                        self.progress(rollout, 1.0, &note);
                    }
                    OnNoData::Rollback => {
                        return Ok(Some(rolled_back(format!("{title}: {why}"))));
                    }
                    OnNoData::Pause => {
                        return Ok(Some(inconclusive(format!("{title}: {why}"))));
                    }
                },
                _ if part >= 1.0 => {
                    let line = format!("{title}: good, {}", seen.describe());
                    rollout.log(Level::Info, &line);
                    return Ok(None);
                }
                _ => self.progress(rollout, part, &format!("{title}: {}", seen.describe())),
            }
        }
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn progress(&self, rollout: &mut Rollout, part: f64, note: &str) {
        let (from, to) = self.percent;
        rollout.progress((from + (to - from) * part) as u32, note);
    }
}
