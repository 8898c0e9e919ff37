//! What a strategy may ask for by name: probes of the candidate, and metrics that
//! come from elsewhere.

use serde::{Deserialize, Serialize};

use super::secret;

/// One HTTP request to the candidate and what it must answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// Its name.
    pub name: String,
    /// Path of the GET request.
    pub path: String,
    /// Status that it must answer.
    pub status: u16,
    /// Text that the body must contain.
    pub contains: Option<String>,
    /// Tries, a second apart, before it counts as failed.
    pub attempts: u32,
    /// How long one try may take.
    pub timeout_ms: u32,
}

/// A custom metric, per arm. In its texts `{arm}`, `{version}` and, on AWS,
/// `{service}`, `{cluster}`, `{target-group}` and `{load-balancer}` are filled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Query {
    /// Its name.
    pub name: String,
    /// Where its values come from.
    #[serde(flatten)]
    pub source: QuerySource,
    /// Headers of its requests; secrets in them are references, see [`secret`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
}

impl Query {
    /// A query without headers of its own.
    #[must_use]
    pub fn new(name: &str, source: QuerySource) -> Self {
        Self {
            name: name.to_owned(),
            source,
            headers: vec![],
        }
    }

    /// Takes out credentials that an older engine let into it.
    pub(crate) fn redact(&mut self) {
        match &mut self.source {
            QuerySource::Json { url, .. } => *url = secret::redacted(url),
            QuerySource::Prometheus { server, .. } => *server = secret::redacted(server),
            QuerySource::CloudWatch(_) => {}
        }
    }
}

/// Where the values of a custom metric come from. Secrets in addresses are
/// references, see [`secret`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum QuerySource {
    /// A number in a JSON document.
    Json {
        /// `http://` or `https://` address; `{since}` is filled in too.
        url: String,
        /// JSON pointer to the number in the answer.
        pointer: String,
    },
    /// A range query of a Prometheus server, which must give one series.
    Prometheus {
        /// Its address, such as `http://prometheus:9090`.
        server: String,
        /// The expression.
        query: String,
    },
    /// A CloudWatch metric or expression.
    CloudWatch(CloudWatchMetric),
}

/// A CloudWatch metric, or an expression over metrics.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct CloudWatchMetric {
    /// Metric math or a `SEARCH`, instead of all below.
    pub expression: Option<String>,
    /// Such as `ML/Serving`.
    pub namespace: String,
    /// Name of the metric.
    pub metric: String,
    /// `Average`, `Sum`, `p99`, `TC(0.5:)` and what else CloudWatch knows.
    pub statistic: String,
    /// Length of one value, s.
    pub period_s: u32,
    /// Name and value of each dimension.
    pub dimensions: Vec<(String, String)>,
}
