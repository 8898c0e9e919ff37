//! The calls, behind a trait so that a test can answer them.

use crate::bindings::rollout::control::control;
use crate::bindings::rollout::metrics::metrics;
use crate::bindings::rollout::traffic::traffic;
use crate::{
    ArmHealth, Finding, HostError, Level, MetricsQuery, Point, ProbeReport, Sample, Wake, Weight,
};

/// The imports of the contract; `wit/strategy.wit` documents each.
#[allow(missing_docs)]
pub trait Host {
    fn get_weights(&mut self) -> Result<Vec<Weight>, HostError>;
    fn set_weights(&mut self, weights: &[Weight]) -> Result<(), HostError>;
    fn switch_color(&mut self, color: &str) -> Result<(), HostError>;
    fn get_metrics(&mut self, query: &MetricsQuery) -> Result<Vec<Sample>, HostError>;
    fn query(&mut self, name: &str, since: f64) -> Result<Vec<Point>, HostError>;
    fn get_health(&mut self) -> Result<Vec<ArmHealth>, HostError>;
    fn now(&mut self) -> f64;
    fn wait(&mut self, seconds: u32, signals: &[&str]) -> Wake;
    fn probe(&mut self, name: &str) -> Result<ProbeReport, HostError>;
    fn probes(&mut self) -> Vec<String>;
    fn log(&mut self, level: Level, message: &str);
    fn progress(&mut self, percent: u32, note: &str);
    fn report(&mut self, finding: &Finding);
}

/// The engine that runs this component.
pub struct Engine;

impl Host for Engine {
    fn get_weights(&mut self) -> Result<Vec<Weight>, HostError> {
        traffic::get_weights()
    }

    fn set_weights(&mut self, weights: &[Weight]) -> Result<(), HostError> {
        traffic::set_weights(weights)
    }

    fn switch_color(&mut self, color: &str) -> Result<(), HostError> {
        traffic::switch_color(color)
    }

    fn get_metrics(&mut self, query: &MetricsQuery) -> Result<Vec<Sample>, HostError> {
        metrics::get_metrics(query)
    }

    fn query(&mut self, name: &str, since: f64) -> Result<Vec<Point>, HostError> {
        metrics::query(name, since)
    }

    fn get_health(&mut self) -> Result<Vec<ArmHealth>, HostError> {
        metrics::get_health()
    }

    fn now(&mut self) -> f64 {
        control::now()
    }

    fn wait(&mut self, seconds: u32, signals: &[&str]) -> Wake {
        let signals: Vec<String> = signals.iter().map(|s| (*s).to_owned()).collect();
        control::wait(seconds, &signals)
    }

    fn probe(&mut self, name: &str) -> Result<ProbeReport, HostError> {
        control::probe(name)
    }

    fn probes(&mut self) -> Vec<String> {
        control::probes()
    }

    fn log(&mut self, level: Level, message: &str) {
        control::log(level, message);
    }

    fn progress(&mut self, percent: u32, note: &str) {
        control::progress(percent, note);
    }

    fn report(&mut self, finding: &Finding) {
        control::report(finding);
    }
}
