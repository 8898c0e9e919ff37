//! A test double of the engine, which runs a strategy natively and does not wait.

use crate::{
    Arm, ArmHealth, Context, Error, ErrorKind, Finding, Host, HostError, Latency, Level,
    MetricsQuery, Outcome, Point, ProbeReport, Role, Rollout, Sample, Signal, Wake, Weight,
};

/// The sample of an arm (its name) at a time (Unix ms) with a share (0-1).
pub type Behave = Box<dyn FnMut(&str, f64, f64) -> Option<Sample>>;

/// The samples of the zones that one of a whole arm is made of.
pub type Split = Box<dyn Fn(&Sample) -> Vec<Sample>>;

/// A scripted world with a virtual clock.
pub struct World {
    /// Every call that changes or asks something, in order, as text.
    pub calls: Vec<String>,
    /// What was written to the history, in order.
    pub logs: Vec<(Level, String)>,
    /// The last progress note.
    pub note: String,
    /// What was reported, in order.
    pub findings: Vec<Finding>,
    /// Current weights.
    pub weights: Vec<Weight>,
    /// Number of healthy backends of each arm.
    pub healthy: [u32; 2],
    /// Whether probes pass.
    pub probes_pass: bool,
    /// Names of the probes.
    pub probes: Vec<String>,
    /// Whether slow requests are counted; otherwise only percentiles are known.
    pub counts_slow: bool,
    /// Custom queries with the constant values of stable and candidate; NaN for no
    /// value.
    pub queries: Vec<(String, [f64; 2])>,
    /// Part (0-1) of the requests of stable and candidate that gets no answer, if that is
    /// counted.
    pub unanswered: Option<[f64; 2]>,
    /// Tasks that stop by themselves: when (Unix ms), the arm (0 for stable), and the exit
    /// code, if the target tells; 137 is out of memory.
    pub restarts: Option<Vec<(f64, usize, u32)>>,
    /// Whether the samples leave those without an answer out.
    pub answered_alone: bool,
    /// How samples are split by zone, if they can be.
    pub zones: Option<Split>,
    /// The time (Unix ms) from which on custom queries have values.
    pub queries_begin: f64,
    /// The time (Unix ms) from which on they fail, and the message.
    pub queries_end: Option<(f64, String)>,
    /// Signals by the time (Unix ms) at which they arrive.
    pub signals: Vec<(f64, Signal)>,
    /// Errors with which the next writes fail.
    pub refuse: Vec<HostError>,
    /// The clock, Unix ms.
    pub now: f64,
    arms: [Arm; 2],
    behave: Behave,
    history: Vec<Sample>,
}

impl World {
    /// A world with arms of these names, the first one stable, and a behaviour.
    pub fn new(
        names: [&str; 2],
        behave: impl FnMut(&str, f64, f64) -> Option<Sample> + 'static,
    ) -> Self {
        let arm = |name: &str, role, version: &str| Arm {
            name: name.to_owned(),
            role,
            version: version.to_owned(),
        };
        let weight = |name: &str, weight| Weight {
            arm: name.to_owned(),
            weight,
        };
        Self {
            calls: vec![],
            logs: vec![],
            note: String::new(),
            findings: vec![],
            weights: vec![weight(names[0], 100), weight(names[1], 0)],
            healthy: [1, 1],
            probes_pass: true,
            probes: vec![],
            counts_slow: true,
            queries: vec![],
            unanswered: None,
            restarts: None,
            answered_alone: false,
            zones: None,
            queries_begin: 0.0,
            queries_end: None,
            signals: vec![],
            refuse: vec![],
            now: 1_000_000.0,
            arms: [
                arm(names[0], Role::Stable, "v1"),
                arm(names[1], Role::Candidate, "v2"),
            ],
            behave: Box::new(behave),
            history: vec![],
        }
    }

    /// Both arms serve their share of `rps`; the candidate, the second name,
    /// with this error rate (0-1) and p99 (ms).
    pub fn steady(names: [&str; 2], rps: f64, error_rate: f64, p99: f64) -> Self {
        let candidate = names[1].to_owned();
        Self::new(names, move |arm, start, share| {
            let on_trial = arm == candidate;
            let requests = (rps * share).round();
            let (rate, p99) = if on_trial {
                (error_rate, p99)
            } else {
                (0.0, 30.0)
            };
            (requests > 0.0).then(|| sample(arm, start, requests, requests * rate, p99))
        })
    }

    /// Runs a strategy with these parameters (a JSON object).
    pub fn run<P: serde::de::DeserializeOwned>(
        &mut self,
        parameters: &str,
        strategy: impl FnOnce(&mut Rollout, P) -> Result<Outcome, Error>,
    ) -> Result<Outcome, String> {
        let context = Context {
            rollout: "test".to_owned(),
            arms: self.arms.to_vec(),
            weights: self.weights.clone(),
            sample_period_ms: 1_000,
        };
        crate::run(self, context, parameters, strategy)
    }

    fn move_to(&mut self, weights: Vec<Weight>, call: String) -> Result<(), HostError> {
        self.calls.push(call);
        if !self.refuse.is_empty() {
            return Err(self.refuse.remove(0));
        }
        self.weights = weights;
        Ok(())
    }

    /// Requests of a sample that get no answer.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn without_answer(&self, sample: &Sample, parts: [f64; 2]) -> u32 {
        let part = parts[usize::from(sample.arm != self.arms[0].name)];
        (f64::from(sample.requests) * part).round() as u32
    }

    fn second(&mut self) {
        let sum: u32 = self.weights.iter().map(|w| w.weight).sum();
        for weight in &self.weights {
            let share = f64::from(weight.weight) / f64::from(sum.max(1));
            self.history
                .extend((self.behave)(&weight.arm, self.now, share));
        }
        self.now += 1_000.0;
    }
}

/// A sample of one second.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub fn sample(arm: &str, start: f64, requests: f64, errors: f64, p99: f64) -> Sample {
    Sample {
        arm: arm.to_owned(),
        zone: None,
        start,
        period_ms: 1_000,
        requests: requests as u32,
        errors: errors.round() as u32,
        client_errors: 0,
        over: vec![],
        latency: Some(Latency {
            mean: p99 / 3.0,
            p50: p99 / 3.0,
            p90: p99 / 2.0,
            p95: p99 / 1.5,
            p99,
        }),
        cpu: None,
        memory: None,
        healthy: None,
    }
}

/// What a query of that name tells of a restart with an exit code.
fn of_restart(name: &str) -> Option<fn(u32) -> Option<f64>> {
    Some(match name {
        "engine:restarts" => |_| Some(1.0),
        "engine:out-of-memory" => |code| (code == 137).then_some(1.0),
        "engine:exit-codes" => |code| Some(f64::from(code)),
        _ => return None,
    })
}

/// Requests above each threshold, interpolated between the percentiles.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn over(sample: &Sample, thresholds: &[f64]) -> Vec<u32> {
    let Some(latency) = &sample.latency else {
        return vec![];
    };
    let own = analysis::percentiles::Percentiles {
        p50: latency.p50,
        p95: latency.p95,
        p99: latency.p99,
    };
    let requests = f64::from(sample.requests);
    // Rounded up as often as the fraction says, or few requests would never give
    // any: the golden ratio spreads that evenly over the samples.
    let up = (sample.start / 1_000.0 * 0.618_033_988_75).fract();
    let count = |ms: &f64| (analysis::percentiles::share_above(&own, *ms) * requests + up) as u32;
    thresholds.iter().map(count).collect()
}

impl Host for World {
    fn get_weights(&mut self) -> Result<Vec<Weight>, HostError> {
        Ok(self.weights.clone())
    }

    fn set_weights(&mut self, weights: &[Weight]) -> Result<(), HostError> {
        let texts: Vec<String> = weights
            .iter()
            .map(|w| format!("{}={}", w.arm, w.weight))
            .collect();
        self.move_to(weights.to_vec(), format!("set-weights {}", texts.join(" ")))
    }

    fn switch_color(&mut self, color: &str) -> Result<(), HostError> {
        let weights = self
            .weights
            .iter()
            .map(|w| Weight {
                arm: w.arm.clone(),
                weight: if w.arm == color { 100 } else { 0 },
            })
            .collect();
        self.move_to(weights, format!("switch-color {color}"))
    }

    fn get_metrics(&mut self, query: &MetricsQuery) -> Result<Vec<Sample>, HostError> {
        let recent = self.history.iter().filter(|s| s.start >= query.since);
        let answered = |mut sample: Sample| {
            if let Some(parts) = self.unanswered.filter(|_| self.answered_alone) {
                sample.requests -= self.without_answer(&sample, parts);
            }
            (sample.requests > 0).then_some(sample)
        };
        Ok(recent
            .cloned()
            .filter_map(answered)
            .flat_map(|sample| match &self.zones {
                Some(split) if query.by_zone => split(&sample),
                _ => vec![sample],
            })
            .map(|sample| Sample {
                over: if self.counts_slow {
                    over(&sample, &query.over_ms)
                } else {
                    vec![]
                },
                ..sample
            })
            .collect())
    }

    fn query(&mut self, name: &str, since: f64) -> Result<Vec<Point>, HostError> {
        let asked = name == "engine:asked" && self.answered_alone;
        if let Some(parts) = self.unanswered
            && (name == "engine:unanswered" || asked)
        {
            let recent = self.history.iter().filter(|s| s.start >= since);
            let points = recent.map(|sample| Point {
                arm: sample.arm.clone(),
                at: sample.start,
                value: f64::from(match asked {
                    true => sample.requests,
                    false => self.without_answer(sample, parts),
                }),
            });
            return Ok(points.collect());
        }
        if let Some(restarts) = &self.restarts
            && let Some(value) = of_restart(name)
        {
            let past = |at: f64| at >= since && at <= self.now;
            let points = restarts.iter().filter(|(at, ..)| past(*at));
            let points = points.filter_map(|(at, arm, code)| {
                Some(Point {
                    arm: self.arms[*arm].name.clone(),
                    at: *at,
                    value: value(*code)?,
                })
            });
            return Ok(points.collect());
        }
        let Some((_, values)) = self.queries.iter().find(|(known, _)| known == name) else {
            return Err(HostError {
                kind: ErrorKind::NotFound,
                code: "not-found".to_owned(),
                message: format!("the test world has no query {name:?}"),
                retryable: false,
            });
        };
        if let Some((_, message)) = self
            .queries_end
            .as_ref()
            .filter(|(end, _)| self.now >= *end)
        {
            return Err(HostError {
                kind: ErrorKind::Denied,
                code: "query-refused".to_owned(),
                message: message.clone(),
                retryable: true,
            });
        }
        let since = since.max(self.queries_begin);
        let recent = self.history.iter().filter(|s| s.start >= since);
        Ok(recent
            .map(|sample| Point {
                arm: sample.arm.clone(),
                at: sample.start,
                value: values[usize::from(sample.arm != self.arms[0].name)],
            })
            .filter(|point| !point.value.is_nan())
            .collect())
    }

    fn get_health(&mut self) -> Result<Vec<ArmHealth>, HostError> {
        self.calls.push("get-health".to_owned());
        Ok(self
            .arms
            .iter()
            .zip(self.healthy)
            .map(|(arm, healthy)| ArmHealth {
                arm: arm.name.clone(),
                healthy,
                total: 1,
            })
            .collect())
    }

    fn now(&mut self) -> f64 {
        self.now
    }

    fn wait(&mut self, seconds: u32, signals: &[&str]) -> Wake {
        for _ in 0..seconds {
            let due = self.signals.iter().position(|(at, s)| {
                *at <= self.now && (s.name == "promote" || signals.contains(&s.name.as_str()))
            });
            if let Some(index) = due {
                let (_, signal) = self.signals.remove(index);
                self.calls.push(format!("woken by {}", signal.name));
                return Wake::Signal(signal);
            }
            self.second();
        }
        Wake::Timer
    }

    fn probe(&mut self, name: &str) -> Result<ProbeReport, HostError> {
        self.calls.push(format!("probe {name}"));
        Ok(ProbeReport {
            ok: self.probes_pass,
            status: if self.probes_pass { 200 } else { 500 },
            elapsed_ms: 1.0,
            detail: "test".to_owned(),
        })
    }

    fn probes(&mut self) -> Vec<String> {
        self.probes.clone()
    }

    fn log(&mut self, level: Level, message: &str) {
        self.logs.push((level, message.to_owned()));
    }

    fn progress(&mut self, _percent: u32, note: &str) {
        note.clone_into(&mut self.note);
    }

    fn report(&mut self, finding: &Finding) {
        self.findings.push(finding.clone());
    }
}
