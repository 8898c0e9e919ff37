//! What a strategy may ask for by name: probes of the candidate, and metrics that
//! come from elsewhere.

use schemars::JsonSchema;
use serde::ser::SerializeStruct as _;
use serde::{Deserialize, Serialize, Serializer};

use super::secret;

/// What a strategy may ask for as for a query, with a value for each sample, without an
/// entry in the rollout file. Targets that do not count it do not have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// Requests that got no answer from an arm.
    Unanswered,
    /// Requests out of which those are counted, where these are not the requests of the
    /// samples.
    Asked,
    /// Requests that were sent to an arm once more, because a connection to it was lost.
    SentAgain,
    /// 4xx answers and what counts as such, as the samples have them.
    ClientErrors,
    /// Tasks that stopped by themselves: they ended, ran out of memory, or failed health
    /// checks. Only periods with some have a value.
    Restarts,
    /// Those of them that ran out of memory.
    OutOfMemory,
    /// Not a count: the highest code with which one of them ended.
    EndedWith,
}

impl Count {
    const ALL: [Self; 7] = [
        Self::Unanswered,
        Self::Asked,
        Self::SentAgain,
        Self::ClientErrors,
        Self::Restarts,
        Self::OutOfMemory,
        Self::EndedWith,
    ];

    /// The name of the query.
    #[must_use]
    pub fn query(self) -> &'static str {
        match self {
            Self::Unanswered => "engine:unanswered",
            Self::Asked => "engine:asked",
            Self::SentAgain => "engine:sent-again",
            Self::ClientErrors => "engine:client-errors",
            Self::Restarts => "engine:restarts",
            Self::OutOfMemory => "engine:out-of-memory",
            Self::EndedWith => "engine:exit-codes",
        }
    }

    /// The count that the query of that name asks for, if it is one.
    #[must_use]
    pub fn of_query(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|count| count.query() == name)
    }
}

/// One HTTP request to the candidate and what it must answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
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
    /// How long one try may take, ms.
    pub timeout_ms: u32,
}

/// A custom metric, per arm. In its texts `{arm}`, `{version}` and, on AWS,
/// `{service}`, `{cluster}`, `{target-group}` and `{load-balancer}` are filled in.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
pub struct Query {
    /// Its name.
    pub name: String,
    /// Where its values come from.
    #[serde(flatten)]
    pub source: QuerySource,
    /// Headers of its requests; secrets in them are references such as
    /// `${NAME}`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// The name and the password that its requests send, if its source asks for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basic_auth: Option<BasicAuth>,
}

/// A name and a password, which are sent as RFC 7617 (Basic) says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BasicAuth {
    /// The name.
    pub user: String,
    /// A reference to the password, such as `${NAME}` or `${file:/PATH}`.
    pub password: String,
}

/// Field by field, so that each of them is known as a field and not as a key of a map.
impl Serialize for Query {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut query = serializer.serialize_struct("Query", 9)?;
        query.serialize_field("name", &self.name)?;
        match &self.source {
            QuerySource::Json { url, pointer } => {
                query.serialize_field("url", url)?;
                query.serialize_field("pointer", pointer)?;
            }
            QuerySource::Prometheus {
                server,
                query: expression,
            } => {
                query.serialize_field("server", server)?;
                query.serialize_field("query", expression)?;
            }
            QuerySource::CloudWatch(CloudWatchMetric {
                expression,
                namespace,
                metric,
                statistic,
                period_s,
                dimensions,
            }) => {
                query.serialize_field("expression", expression)?;
                query.serialize_field("namespace", namespace)?;
                query.serialize_field("metric", metric)?;
                query.serialize_field("statistic", statistic)?;
                query.serialize_field("period_s", period_s)?;
                query.serialize_field("dimensions", dimensions)?;
            }
        }
        if !self.headers.is_empty() {
            query.serialize_field("headers", &self.headers)?;
        }
        if let Some(basic_auth) = &self.basic_auth {
            query.serialize_field("basic_auth", basic_auth)?;
        }
        query.end()
    }
}

impl Query {
    /// A query without headers of its own.
    #[must_use]
    pub fn new(name: &str, source: QuerySource) -> Self {
        Self {
            name: name.to_owned(),
            source,
            headers: vec![],
            basic_auth: None,
        }
    }

    /// Hides credentials that an older engine has accepted in its address.
    pub(crate) fn redact(&mut self) {
        match &mut self.source {
            QuerySource::Json { url, .. } => *url = secret::redacted(url),
            QuerySource::Prometheus { server, .. } => *server = secret::redacted(server),
            QuerySource::CloudWatch(_) => {}
        }
    }
}

/// Where the values of a custom metric come from. Secrets in addresses are
/// references such as `${NAME}` or `${file:/PATH}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct CloudWatchMetric {
    /// An expression of metric math, or a `SEARCH`; the other fields are then unused.
    pub expression: Option<String>,
    /// Such as `ML/Serving`.
    pub namespace: String,
    /// Name of the metric.
    pub metric: String,
    /// A statistic that CloudWatch knows, such as `Average`, `Sum`, `p99` or `TC(0.5:)`.
    pub statistic: String,
    /// The time that one value stands for, s.
    pub period_s: u32,
    /// Name and value of each dimension.
    pub dimensions: Vec<(String, String)>,
}
