//! Custom queries over HTTP: a number in a JSON document, or Prometheus.

use std::time::Duration;

use hyper::header::AUTHORIZATION;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::http::{Answer, Client};
use super::secret::{self, Filled};
use crate::model::query::{Query, QuerySource};
use crate::model::secret::is_secret_key;
use crate::model::{ErrorKind, HostError, Millis, Point};

/// How long a query may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Distance of two values of a Prometheus query, s.
const STEP_S: u64 = 15;
/// Prometheus refuses more values in one answer.
const VALUES_MAX: u64 = 11_000;

/// All but RFC 3986's unreserved characters.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// What stands for `{arm}`, `{version}` and other words of a query, for one arm.
#[derive(Debug, Clone)]
pub(super) struct Words {
    pub(super) arm: String,
    words: Vec<(String, String)>,
}

impl Words {
    pub(super) fn new(arm: &str, version: &str) -> Self {
        let words = [("arm", arm), ("version", version)];
        Self {
            arm: arm.to_owned(),
            words: words
                .map(|(k, v)| (format!("{{{k}}}"), v.to_owned()))
                .to_vec(),
        }
    }

    #[must_use]
    pub(super) fn with(mut self, word: &str, value: &str) -> Self {
        self.words.push((format!("{{{word}}}"), value.to_owned()));
        self
    }

    /// `text` with every word replaced.
    pub(super) fn fill(&self, text: &str) -> String {
        self.words
            .iter()
            .fold(text.to_owned(), |text, (word, value)| {
                text.replace(word, value)
            })
    }
}

/// Values of a query for all arms. A source that has nothing is no error, and one whose
/// values are all no numbers is one.
pub(super) async fn ask(
    client: &Client,
    query: &Query,
    arms: &[Words],
    since: Millis,
    now: Millis,
) -> Result<Vec<Point>, HostError> {
    let mut points = vec![];
    let mut without = vec![];
    for arm in arms {
        match &query.source {
            QuerySource::Json { url, pointer } => {
                let words = |text: &str| arm.fill(&text.replace("{since}", &since.to_string()));
                let asked = Request::new(query, url, words)?;
                if let Some(answer) = asked.get(client).await? {
                    let document = asked.json(&answer)?;
                    let found = document.pointer(pointer);
                    let value = found.and_then(serde_json::Value::as_f64).ok_or_else(|| {
                        asked.failed(&format!(
                            "there is no number at {pointer:?} but {}",
                            kind(found)
                        ))
                    })?;
                    points.push(Point {
                        arm: arm.arm.clone(),
                        at: answer.at,
                        value,
                    });
                }
            }
            QuerySource::Prometheus {
                server,
                query: text,
            } => {
                let asked = Range {
                    query,
                    server,
                    expression: &arm.fill(text),
                };
                let values = asked.points(client, &arm.arm, since, now).await?;
                let before = points.len();
                points.extend(values.iter().filter(|p| p.value.is_finite()).cloned());
                // A rate over nothing is NaN, and no value.
                if let Some(last) = values.last().filter(|_| points.len() == before) {
                    without.push(format!("{} for {}", last.value, last.arm));
                }
            }
            QuerySource::CloudWatch(_) => {
                return Err(HostError::new(
                    ErrorKind::Invalid,
                    "query-needs-aws",
                    format!(
                        "query {:?} asks CloudWatch, which only a target on AWS has",
                        query.name
                    ),
                ));
            }
        }
    }
    if points.is_empty() && !without.is_empty() {
        return Err(HostError::new(
            ErrorKind::Unavailable,
            "query-not-a-number",
            format!(
                "query {:?} gives no number: {}; a division by 0 requests does that",
                query.name,
                without.join(" and ")
            ),
        )
        .retryable());
    }
    Ok(points)
}

/// What stands where a number should, in words.
fn kind(found: Option<&serde_json::Value>) -> String {
    use serde_json::Value;
    match found {
        None => "nothing".to_owned(),
        Some(Value::Null) => "null".to_owned(),
        Some(Value::Bool(value)) => value.to_string(),
        Some(Value::String(text)) => {
            format!("the text {:?}", text.chars().take(40).collect::<String>())
        }
        Some(Value::Array(_)) => "a list".to_owned(),
        Some(Value::Object(_)) => "an object".to_owned(),
        Some(Value::Number(number)) => format!("{number}, which is too large"),
    }
}

/// A range query of Prometheus for one arm.
struct Range<'a> {
    query: &'a Query,
    server: &'a str,
    expression: &'a str,
}

impl Range<'_> {
    /// Its values, also those that are no numbers.
    async fn points(
        &self,
        client: &Client,
        arm: &str,
        since: Millis,
        now: Millis,
    ) -> Result<Vec<Point>, HostError> {
        let end = now / 1_000;
        let start = (since / 1_000)
            .max(end.saturating_sub(STEP_S * VALUES_MAX))
            .min(end);
        let path = format!(
            "/api/v1/query_range?query={}&start={start}&end={end}&step={STEP_S}",
            utf8_percent_encode(self.expression, ENCODED)
        );
        let mut asked = Request::new(self.query, self.server.trim_end_matches('/'), str::to_owned)?;
        asked.url.text.push_str(&path);
        asked.url.shown.push_str(&path);
        let Some(answer) = asked.get(client).await? else {
            return Ok(vec![]);
        };
        let document = asked.json(&answer)?;
        let series = document["data"]["result"].as_array();
        let series = series.ok_or_else(|| asked.failed("it is no matrix of values"))?;
        if series.len() > 1 {
            return Err(HostError::new(
                ErrorKind::Invalid,
                "query-not-one-series",
                format!(
                    "query {:?} gives {} series for arm {arm}: aggregate it to one, such as sum(…), or select with {{arm}} or {{service}}: {}",
                    self.query.name,
                    series.len(),
                    self.expression
                ),
            ));
        }
        let values = series
            .iter()
            .filter_map(|s| s["values"].as_array())
            .flatten();
        let points = values.filter_map(|pair| {
            Some(Point {
                arm: arm.to_owned(),
                at: seconds_to_ms(pair[0].as_f64().unwrap_or_default()),
                value: pair[1].as_str()?.parse().ok()?,
            })
        });
        Ok(points.collect())
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a time in seconds, of this century"
)]
fn seconds_to_ms(seconds: f64) -> Millis {
    (seconds * 1_000.0).round() as Millis
}

/// One request of a query. Its secrets are sent, and in no message.
struct Request<'a> {
    name: &'a str,
    url: Filled,
    headers: Vec<(&'a str, Filled)>,
    /// What is in a header in another form.
    hidden: Vec<Filled>,
}

impl<'a> Request<'a> {
    fn new(query: &'a Query, url: &str, words: impl Fn(&str) -> String) -> Result<Self, HostError> {
        let name = query.name.as_str();
        let missing = |what: String| {
            HostError::new(
                ErrorKind::Unavailable,
                "secret-missing",
                format!("query {name:?} cannot be asked: {what}"),
            )
            .retryable()
        };
        let headers = query.headers.iter().map(|(header, text)| {
            let text = secret::fill(text, str::to_owned).map_err(missing)?;
            Ok((header.as_str(), text))
        });
        let mut headers: Vec<_> = headers.collect::<Result<_, HostError>>()?;
        let mut hidden = vec![];
        if let Some(login) = &query.basic_auth {
            let user = secret::fill(&login.user, str::to_owned).map_err(missing)?;
            let password = secret::fill(&login.password, str::to_owned).map_err(missing)?;
            headers.push((AUTHORIZATION.as_str(), user.login(&password)));
            hidden = vec![user, password];
        }
        Ok(Self {
            name,
            url: secret::fill(url, words).map_err(missing)?,
            headers,
            hidden,
        })
    }

    async fn get(&self, client: &Client) -> Result<Option<Answer>, HostError> {
        let headers: Vec<_> = self
            .headers
            .iter()
            .map(|(name, filled)| (*name, filled.text.clone()))
            .collect();
        let answer = client.send_with("GET", &self.url.text, &headers, None, TIMEOUT);
        let answer = answer.await.map_err(|e| self.failed(&e.to_string()))?;
        if answer.status == hyper::StatusCode::NO_CONTENT {
            return Ok(None);
        }
        if answer.status.is_success() {
            return Ok(Some(answer));
        }
        // Prometheus says in words what is wrong with a query.
        let said: Option<String> = serde_json::from_slice::<serde_json::Value>(&answer.body)
            .ok()
            .and_then(|d| d["error"].as_str().map(ToOwned::to_owned));
        let said = said.map_or_else(String::new, |e| format!(": {e}"));
        let credentials = self.headers.iter().any(|(name, _)| is_secret_key(name));
        let hint = match answer.status.as_u16() {
            401 if credentials => "it does not take the credentials of this query",
            401 => {
                "it asks for credentials, and this query has none; see `headers` and `basic-auth` in the rollout file"
            }
            403 => "the credentials of this query may not read that",
            407 => "the proxy before it asks for credentials",
            _ => "",
        };
        if !hint.is_empty() {
            let mut error = self.failed(&format!("it refused ({}){said}: {hint}", answer.status));
            (error.kind, error.code) = (ErrorKind::Denied, "query-refused".to_owned());
            return Err(error);
        }
        Err(self.failed(&format!("it answered {}{said}", answer.status)))
    }

    fn json(&self, answer: &Answer) -> Result<serde_json::Value, HostError> {
        serde_json::from_slice(&answer.body)
            .map_err(|e| self.failed(&format!("its answer is no JSON: {e}")))
    }

    fn failed(&self, what: &str) -> HostError {
        let headers = self.headers.iter().map(|(_, filled)| filled);
        let what = std::iter::once(&self.url)
            .chain(headers)
            .chain(&self.hidden)
            .fold(what.to_owned(), |what, filled| filled.scrub(&what));
        HostError::new(
            ErrorKind::Unavailable,
            "query-failed",
            format!("query {:?} at {}: {what}", self.name, self.url.shown),
        )
        .retryable()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_filled_in() {
        let words = Words::new("canary", "app:v2").with("service", "app-canary");
        assert_eq!(
            words.fill("x{arm=\"{arm}\",s=\"{service}\",{nothing}}"),
            "x{arm=\"canary\",s=\"app-canary\",{nothing}}"
        );
        let encoded = utf8_percent_encode("a b{c=\"d\"}-_.~", ENCODED);
        assert_eq!(encoded.to_string(), "a%20b%7Bc%3D%22d%22%7D-_.~");
    }
}
