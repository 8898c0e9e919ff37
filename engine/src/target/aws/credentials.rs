//! Why there are no credentials: which place was to give them, what went wrong there, and
//! what a person can do. Pure.

use crate::model::network::AwsVariables;

/// Who was asked for credentials.
pub(super) struct Asked<'a> {
    /// The profile that an argument or a file names.
    pub(super) profile: Option<&'a str>,
    /// The role that one of these names.
    pub(super) role: Option<&'a str>,
    /// What the environment names.
    pub(super) variables: &'a AwsVariables,
}

/// The part of the SDK that a profile with `login_session` needs. It brings a client for
/// one more service and elliptic curves along, for what the AWS CLI can hand over.
const LOGIN_FEATURE: &str = "credentials-login";

/// What the SDK says where nothing gave credentials in time.
pub(super) const HUNG: &str = "identity resolver timed out";

/// What is said of credentials that no request can be signed with.
pub(super) const UNFIT: &str =
    "has a line break, or another character that credentials of AWS never have";

/// What the SDK says of a place that nobody has set up.
const NOT_SET_UP: [&str; 6] = [
    "environment variable not set",
    "the credential provider was not enabled",
    "$AWS_WEB_IDENTITY_TOKEN_FILE was not set",
    "ECS provider not configured",
    "IMDS disabled by AWS_EC2_METADATA_DISABLED env var set to `true`",
    "",
];

impl Asked<'_> {
    /// The profile, and how it was named.
    fn profile(&self) -> Option<String> {
        let variable = self.variables.profile.as_deref();
        let named = self.profile.map(|name| format!("the AWS profile {name}"));
        named.or_else(|| Some(format!("the AWS profile {} (AWS_PROFILE)", variable?)))
    }

    fn profile_name(&self) -> &str {
        let variable = self.variables.profile.as_deref();
        self.profile.or(variable).unwrap_or("default")
    }

    /// Whether the service that gives the credentials did not answer, which may pass. A
    /// container's own endpoint is next door: if nobody listens there, its address is wrong.
    pub(super) fn was_unreachable(&self, whole: &str) -> bool {
        // What was asked instead of a profile that there is none of explains nothing.
        if whole.contains("was not defined") || whole.contains(UNFIT) {
            return false;
        }
        let next_door = self.variables.container.is_some() && self.profile().is_none();
        // The call itself fails as one that was not sent, so that counts once.
        let unsent = whole.matches("ConnectorError {").count() > 1;
        whole.contains(HUNG) || !next_door && (unsent || whole.contains("TimeoutError"))
    }

    /// Why there are no credentials, and what to do, from the whole error of the SDK and
    /// its innermost cause.
    pub(super) fn why(&self, whole: &str, cause: &str) -> (String, String) {
        let cause = &plain(cause);
        let profile = self.profile();
        let whose = profile.as_deref().unwrap_or("the AWS profile default");
        let name = self.profile_name();
        let has = |words: &[&str]| words.iter().any(|word| whole.contains(word));
        if whole.contains(LOGIN_FEATURE) {
            return (
                format!(
                    "{whose} has a session of `aws login` (login_session), which engine does not support by itself"
                ),
                format!(
                    "the AWS CLI hands it over: make a second profile with `credential_process = aws configure export-credentials --profile {name} --format process`, and name that one with --profile or AWS_PROFILE"
                ),
            );
        }
        if whole.contains(UNFIT) {
            let whose = profile.map_or_else(String::new, |whose| format!("{whose}: "));
            return (
                format!("{whose}{cause}"),
                "write it anew without that: what `echo` writes into a file or a secret ends in a line break, and what `printf %s` writes does not"
                    .to_owned(),
            );
        }
        if let Some((_, time)) = whole.split_once(HUNG) {
            let time = time.trim_start_matches(" after ");
            let time: String = time
                .chars()
                .take_while(char::is_ascii_alphanumeric)
                .collect();
            let whose = profile.unwrap_or_else(|| "the caller".to_owned());
            return (
                format!("what gives those of {whose} had not answered after {time}"),
                "a credential_process must end by itself and ask no question, so run that command by hand; for roles and IAM Identity Center see HTTPS_PROXY and NO_PROXY"
                    .to_owned(),
            );
        }
        if self.was_unreachable(whole) {
            let whose = profile.unwrap_or_else(|| "the caller".to_owned());
            return (
                format!("the service that gives those of {whose} did not answer: {cause}"),
                "see HTTPS_PROXY and NO_PROXY, and AWS_ENDPOINT_URL_STS or AWS_ENDPOINT_URL_SSO if they are set"
                    .to_owned(),
            );
        }
        if has(&["external process"]) {
            return (
                format!("the credential_process of {whose} gave none: {cause}"),
                "run that command by hand; it must print JSON with Version, AccessKeyId and SecretAccessKey"
                    .to_owned(),
            );
        }
        if has(&["UnauthorizedException", "SSO token", "sso/cache"]) {
            return (
                format!("{whose} has no login at IAM Identity Center that is still good: {cause}"),
                format!(
                    "`aws sso login --profile {name}`, or with the profile that {name} names as its source_profile"
                ),
            );
        }
        if has(&["ForbiddenException"]) {
            return (
                format!(
                    "the login of {whose} at IAM Identity Center has no access to its account and role: {cause}"
                ),
                "see sso_account_id and sso_role_name of that profile, and `aws sso login` as somebody who has them"
                    .to_owned(),
            );
        }
        if has(&[
            "was not defined",
            "sso-session named",
            "credential source",
            "infinite loop",
        ]) {
            return (
                format!("{whose} cannot be used: {}", told(cause)),
                "see the file ~/.aws/config (or AWS_CONFIG_FILE), and --profile and AWS_PROFILE"
                    .to_owned(),
            );
        }
        if has(&[
            "AssumeRoleWithWebIdentity",
            "WebIdentityToken",
            "web_identity",
        ]) || self.variables.web_identity.is_some() && profile.is_none()
        {
            let file = self.variables.web_identity.as_deref();
            let file =
                file.unwrap_or("that AWS_WEB_IDENTITY_TOKEN_FILE or web_identity_token_file names");
            if !has(&["no credentials found in chain"]) {
                return (
                    format!("the web identity token in the file {file} gives none: {cause}"),
                    "AWS_WEB_IDENTITY_TOKEN_FILE must name a file with a fresh token, and the trust policy of the role in AWS_ROLE_ARN must accept its issuer"
                        .to_owned(),
                );
            }
        }
        if has(&["sts:AssumeRole", "AssumeRole"]) {
            let role = self.role.map_or_else(
                || format!("the role of {whose}"),
                |role| format!("the role {role}"),
            );
            return (
                format!("{role} could not be assumed: {cause}"),
                "the caller needs sts:AssumeRole on that role, and the role's trust policy must name the caller"
                    .to_owned(),
            );
        }
        if let Some(place) = &self.variables.container
            && profile.is_none()
        {
            return (
                format!("the credentials of the container at {place} cannot be had: {cause}"),
                "AWS_CONTAINER_CREDENTIALS_FULL_URI must be https:// or an address of this machine, and what listens there must know the token in AWS_CONTAINER_AUTHORIZATION_TOKEN(_FILE)"
                    .to_owned(),
            );
        }
        if profile.is_some() && cause == "ECS provider not configured" {
            return (
                format!(
                    "{whose} takes its credentials from a container (credential_source = EcsContainer), and this is none"
                ),
                "in a container AWS_CONTAINER_CREDENTIALS_RELATIVE_URI or AWS_CONTAINER_CREDENTIALS_FULL_URI is set"
                    .to_owned(),
            );
        }
        if profile.is_some() && has(&["os error 2)", "os error 13)"]) {
            return (
                format!("a file that {whose} names cannot be read: {cause}"),
                "see web_identity_token_file of that profile".to_owned(),
            );
        }
        let whose = profile.map_or_else(String::new, |whose| format!("{whose}: "));
        (
            format!("{whose}{}", told(cause)),
            "set AWS_PROFILE or --profile, or log in as for the AWS CLI".to_owned(),
        )
    }
}

/// A refusal as AWS words it, and not as the SDK's type is printed.
fn plain(cause: &str) -> String {
    let inner = cause.strip_prefix("Error { code: \"");
    let parts = inner.and_then(|rest| rest.strip_suffix("\" }")?.split_once("\", message: \""));
    match parts {
        Some((code, message)) => format!("{message} ({code})"),
        None if cause == "the credential provider was not enabled" => {
            "it has no credentials".to_owned()
        }
        None => cause.trim().to_owned(),
    }
}

/// What the SDK's chain says, without the places that nobody has set up.
fn told(cause: &str) -> String {
    let Some((_, attempts)) = cause.split_once("Attempted:") else {
        return cause.to_owned();
    };
    let reasons = attempts.lines().filter_map(|line| {
        let (place, why) = line.trim().split_once(": ")?;
        let why = why.trim_start_matches("the credential provider was not enabled: ");
        (!NOT_SET_UP.contains(&why)).then(|| format!("{place}: {why}"))
    });
    let reasons: Vec<String> = reasons.collect();
    if reasons.is_empty() {
        return "none are in the environment, in a profile, in a web identity token, in a container or in an instance"
            .to_owned();
    }
    reasons.join("; ")
}
