//! Where credentials come from, which endpoints are asked for them and for the services,
//! and what is said when there are none. Everything that gives credentials is one server
//! of this test; it signs what it gives with a key id of its own.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::support::aws::bottle::{REGION, Wish, make};
use crate::support::aws::emulator;
use crate::support::binary::{engine, stderr, stdout};
use crate::support::folder;

const LISTENER: &str = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:listener/app/a/1/2";
const ROLE: &str = "arn:aws:iam::123456789012:role/R";
const LATER: &str = "2099-01-01T00:00:00Z";

/// STS, the portal and the token service of IAM Identity Center, the endpoint of a
/// container, and any other service, which refuses.
#[derive(Clone, Default)]
struct Aws {
    seen: Arc<Mutex<Vec<String>>>,
}

impl Aws {
    async fn start() -> (Self, String) {
        let aws = Self::default();
        let app = axum::Router::new().fallback(answer).with_state(aws.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("free");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        tokio::spawn(async move { axum::serve(listener, app).await });
        (aws, url)
    }

    /// What it was asked since the last look: the operation or path, and who signed.
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.seen.lock().expect("no panic"))
    }
}

async fn answer(State(aws): State<Aws>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.expect("small");
    let body = String::from_utf8_lossy(&body).into_owned();
    let action = body
        .strip_prefix("Action=")
        .and_then(|b| b.split('&').next());
    let action = action.unwrap_or(head.uri.path()).to_owned();
    let signed = head
        .headers
        .get("authorization")
        .and_then(|v| v.to_str().ok());
    let signed = signed.unwrap_or_default();
    let key = signed
        .split_once("Credential=")
        .and_then(|(_, k)| k.split('/').next());
    let line = format!("{action} {}", key.unwrap_or(signed));
    aws.seen
        .lock()
        .expect("no panic")
        .push(line.trim().to_owned());
    let asks = |word: &str| body.contains(word) || head.uri.to_string().contains(word);
    let error = |code: &str, message: &str| {
        format!(
            "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error><RequestId>1</RequestId></ErrorResponse>"
        )
    };
    let kind = |kind: &'static str| [("x-amzn-errortype", kind)];
    match action.as_str() {
        "AssumeRole" if asks("denied") => (
            StatusCode::FORBIDDEN,
            error("AccessDenied", "not authorized to perform: sts:AssumeRole"),
        )
            .into_response(),
        "AssumeRoleWithWebIdentity" if asks("stale") => (
            StatusCode::BAD_REQUEST,
            error("ExpiredTokenException", "Token expired"),
        )
            .into_response(),
        "AssumeRole" | "AssumeRoleWithWebIdentity" => {
            let given = format!(
                "<Credentials><AccessKeyId>OFSTS</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken><Expiration>{LATER}</Expiration></Credentials>"
            );
            format!("<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result>{given}</{action}Result></{action}Response>").into_response()
        }
        "/federation/credentials" if asks("gone") => (
            StatusCode::UNAUTHORIZED,
            kind("UnauthorizedException"),
            json!({"message": "Session token not found or invalid"}).to_string(),
        )
            .into_response(),
        "/federation/credentials" if asks("denied") => (
            StatusCode::FORBIDDEN,
            kind("ForbiddenException"),
            json!({"message": "No access"}).to_string(),
        )
            .into_response(),
        "/federation/credentials" => json!({"roleCredentials": {
            "accessKeyId": "OFPORTAL", "secretAccessKey": "s", "sessionToken": "t",
            "expiration": 4_070_908_800_000_u64,
        }})
        .to_string()
        .into_response(),
        "/token" => json!({"accessToken": "fresh", "expiresIn": 3600, "tokenType": "Bearer"})
            .to_string()
            .into_response(),
        "/container" if signed == "let me in" => json!({
            "AccessKeyId": "OFCONTAINER", "SecretAccessKey": "s", "Token": "t", "Expiration": LATER,
        })
        .to_string()
        .into_response(),
        "/container" => (StatusCode::FORBIDDEN, "{}").into_response(),
        "/latest/api/token" => {
            ([("x-aws-ec2-metadata-token-ttl-seconds", "600")], "t").into_response()
        }
        path if path.starts_with("/latest/") => match path.rsplit('/').next() {
            Some("") => "TheRole".into_response(),
            _ => json!({
                "Code": "Success", "AccessKeyId": "OFINSTANCE", "SecretAccessKey": "s",
                "Token": "t", "Expiration": LATER,
            })
            .to_string()
            .into_response(),
        },
        _ if key == Some("BUSY") => (
            StatusCode::SERVICE_UNAVAILABLE,
            error("ServiceUnavailable", "busy"),
        )
            .into_response(),
        _ => (StatusCode::FORBIDDEN, error("AccessDenied", "seen")).into_response(),
    }
}

/// A home with profiles of every kind.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        let home = Self(folder());
        std::fs::create_dir_all(home.0.path().join(".aws/sso/cache")).expect("made");
        for (of, expires) in [
            ("https://fresh/start", LATER),
            ("fresh", LATER),
            ("old", "2020-01-01T00:00:00Z"),
        ] {
            home.token(of, json!({"accessToken": "t", "expiresAt": expires}));
        }
        home.run_out();
        let file = |name: &str, text: &str| {
            std::fs::write(home.0.path().join(name), text).expect("writable");
        };
        file("token", "jwt");
        file("stale", "stale");
        let sso = |name: &str, url: &str, role: &str| {
            format!(
                "[profile {name}]\nsso_start_url = {url}\nsso_region = eu-west-1\nsso_account_id = 123456789012\nsso_role_name = {role}\n"
            )
        };
        let session = |name: &str| {
            format!(
                "[sso-session {name}]\nsso_start_url = https://x/start\nsso_region = eu-west-1\n[profile {name}]\nsso_session = {name}\nsso_account_id = 123456789012\nsso_role_name = R\n"
            )
        };
        let mut text = [
            sso("portal", "https://fresh/start", "R"),
            sso("gone", "https://fresh/start", "gone"),
            sso("forbidden", "https://fresh/start", "denied"),
            sso("never", "https://never/start", "R"),
            session("fresh"),
            session("old"),
            session("renewed"),
            session("nowhere"),
        ]
        .concat();
        let own = home.0.path().display();
        let more = format!(
            "[profile keys]\naws_access_key_id = OFPROFILE\naws_secret_access_key = s\n\
             [profile role]\nrole_arn = {ROLE}\nsource_profile = keys\n\
             [profile role-of-portal]\nrole_arn = {ROLE}\nsource_profile = portal\n\
             [profile role-of-container]\nrole_arn = {ROLE}\ncredential_source = EcsContainer\n\
             [profile role-denied]\nrole_arn = {ROLE}/denied\nsource_profile = keys\n\
             [profile role-of-nobody]\nrole_arn = {ROLE}\nsource_profile = nobody\n\
             [profile web]\nrole_arn = {ROLE}\nweb_identity_token_file = {own}/token\n\
             [profile web-lost]\nrole_arn = {ROLE}\nweb_identity_token_file = {own}/lost\n\
             [profile empty]\nregion = eu-west-1\n\
             [profile program]\ncredential_process = printf '{{\"Version\":1,\"AccessKeyId\":\"OFPROGRAM\",\"SecretAccessKey\":\"s\"}}'\n\
             [profile program-fails]\ncredential_process = sh -c \"echo not today >&2; exit 3\"\n\
             [profile program-talks]\ncredential_process = echo hello\n\
             [profile program-lost]\ncredential_process = /no/such/program\n\
             [profile program-hangs]\ncredential_process = cat {own}/never\n\
             [profile role-of-hanging]\nrole_arn = {ROLE}\nsource_profile = program-hangs\n\
             [profile round]\nrole_arn = {ROLE}\nsource_profile = about\n\
             [profile about]\nrole_arn = {ROLE}\nsource_profile = round\n"
        );
        text.push_str(&more);
        file("config", &text);
        home
    }

    /// A login that `aws sso login` has left, in the file that is named by a digest.
    fn token(&self, of: &str, token: serde_json::Value) {
        let digest = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, of.as_bytes());
        let name: String = digest.as_ref().iter().map(|b| format!("{b:02x}")).collect();
        let place = self
            .0
            .path()
            .join(".aws/sso/cache")
            .join(format!("{name}.json"));
        std::fs::write(place, token.to_string()).expect("writable");
    }

    /// A login that has expired and can be renewed.
    fn run_out(&self) {
        self.token(
            "renewed",
            json!({
                "accessToken": "t", "expiresAt": "2020-01-01T00:00:00Z", "refreshToken": "r",
                "clientId": "c", "clientSecret": "s", "registrationExpiresAt": LATER,
            }),
        );
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn status(&self, set: &[(&str, &str)], flags: &[&str]) -> Output {
        let arguments = [&["status", "--listener", LISTENER], flags].concat();
        let mut command = self.command(&arguments);
        command.envs(set.iter().copied());
        command.output().expect("the binary runs")
    }

    /// The engine in a shell that says nothing of AWS, with this home.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = engine(self.path(), arguments);
        for (name, _) in std::env::vars()
            .filter(|(name, _)| name.starts_with("AWS_") || name.to_uppercase().ends_with("_PROXY"))
        {
            command.env_remove(name);
        }
        command
            .env("HOME", self.path())
            .env("AWS_CONFIG_FILE", self.path().join("config"))
            .env("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
            .env("AWS_EC2_METADATA_DISABLED", "true");
        command
    }
}

/// Who signs the calls: by each place that gives credentials, whichever way it is named.
#[tokio::test(flavor = "multi_thread")]
async fn each_place_that_gives_credentials_is_used() {
    let (aws, url) = Aws::start().await;
    let home = Home::new();
    for (profile, asked, signs) in [
        ("keys", &[][..], "OFPROFILE"),
        ("program", &[], "OFPROGRAM"),
        ("portal", &["/federation/credentials"], "OFPORTAL"),
        ("fresh", &["/federation/credentials"], "OFPORTAL"),
        (
            "renewed",
            &["/token", "/federation/credentials"],
            "OFPORTAL",
        ),
        ("role", &["AssumeRole OFPROFILE"], "OFSTS"),
        (
            "role-of-portal",
            &["/federation/credentials", "AssumeRole OFPORTAL"],
            "OFSTS",
        ),
        ("web", &["AssumeRoleWithWebIdentity"], "OFSTS"),
    ] {
        let last = format!("DescribeListeners {signs}");
        let wanted = [asked, &[last.as_str()]].concat();
        let general = ("AWS_ENDPOINT_URL", url.as_str());
        for (set, flags) in [
            (vec![general, ("AWS_PROFILE", profile)], vec![]),
            // A profile that is named comes before keys in the environment.
            (
                vec![
                    general,
                    ("AWS_ACCESS_KEY_ID", "x"),
                    ("AWS_SECRET_ACCESS_KEY", "x"),
                ],
                vec!["--profile", profile],
            ),
        ] {
            home.run_out();
            let said = stderr(&home.status(&set, &flags));
            assert_eq!(aws.take(), wanted, "{profile} {flags:?}: {said}");
        }
    }

    let token = home.path().join("token").display().to_string();
    let container = format!("{url}/container");
    let inside = home.path().join("inside").display().to_string();
    std::fs::write(&inside, "let me in").expect("writable");
    let keys = [
        ("AWS_ACCESS_KEY_ID", "OFSHELL"),
        ("AWS_SECRET_ACCESS_KEY", "s"),
    ];
    let web = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.as_str()),
        ("AWS_ROLE_ARN", ROLE),
    ];
    let full = ("AWS_CONTAINER_CREDENTIALS_FULL_URI", container.as_str());
    let by_value = [full, ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "let me in")];
    let by_file = [
        full,
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", inside.as_str()),
    ];
    let as_role = ["--role", ROLE];
    for (set, flags, wanted) in [
        (&keys[..], &[][..], &["DescribeListeners OFSHELL"][..]),
        (
            &keys,
            &as_role,
            &["AssumeRole OFSHELL", "DescribeListeners OFSTS"],
        ),
        (
            &web,
            &[],
            &["AssumeRoleWithWebIdentity", "DescribeListeners OFSTS"],
        ),
        (
            &web,
            &as_role,
            &[
                "AssumeRoleWithWebIdentity",
                "AssumeRole OFSTS",
                "DescribeListeners OFSTS",
            ],
        ),
        (
            &by_value,
            &[],
            &["/container let me in", "DescribeListeners OFCONTAINER"],
        ),
        (
            &by_file,
            &[],
            &["/container let me in", "DescribeListeners OFCONTAINER"],
        ),
        (
            &by_file,
            &["--profile", "role-of-container"],
            &[
                "/container let me in",
                "AssumeRole OFCONTAINER",
                "DescribeListeners OFSTS",
            ],
        ),
    ] {
        let set = [&[("AWS_ENDPOINT_URL", url.as_str())], set].concat();
        let said = stderr(&home.status(&set, flags));
        assert_eq!(aws.take(), wanted, "{flags:?}: {said}");
    }
}

/// Errors name the profile, the file or the variable, and what a person can do.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_credentials_is_told_where_they_were_to_come_from() {
    let (_aws, url) = Aws::start().await;
    let home = Home::new();
    let said = |set: &[(&str, &str)], flags: &[&str], says: &[&str]| {
        let set = [&[("AWS_ENDPOINT_URL", url.as_str())], set].concat();
        let output = home.status(&set, flags);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        for word in [
            &["no usable AWS credentials for DescribeListeners", "hint: "],
            says,
        ]
        .concat()
        {
            assert!(said.contains(word), "{set:?} {flags:?}: {word}: {said}");
        }
    };
    for (profile, says) in [
        (
            "gone",
            &["`aws sso login --profile gone`", "Session token not found"][..],
        ),
        ("never", &["`aws sso login --profile never`"]),
        ("old", &["`aws sso login --profile old`", "has expired"]),
        ("nowhere", &["`aws sso login --profile nowhere`"]),
        ("forbidden", &["No access", "sso_role_name"]),
        ("program-fails", &["credential_process", "not today"]),
        ("program-talks", &["credential_process", "must print JSON"]),
        ("program-lost", &["credential_process", "/no/such/program"]),
        (
            "role-denied",
            &[
                "could not be assumed",
                "not authorized to perform: sts:AssumeRole (AccessDenied)",
            ],
        ),
        (
            "role-of-nobody",
            &["`nobody` was not defined", "~/.aws/config"],
        ),
        (
            "role-of-container",
            &[
                "credential_source = EcsContainer",
                "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            ],
        ),
        ("web-lost", &["cannot be read", "web_identity_token_file"]),
        ("nobody", &["`nobody` was not defined", "--profile"]),
        (
            "round",
            &["cannot be used", "infinite loop", "~/.aws/config"],
        ),
    ] {
        let named = format!("the AWS profile {profile}");
        said(&[], &["--profile", profile], &[says, &[&named]].concat());
        let variable = format!("the AWS profile {profile} (AWS_PROFILE)");
        said(
            &[("AWS_PROFILE", profile)],
            &[],
            &[says, &[&variable]].concat(),
        );
    }
    // What is asked after it, and does not answer, is not the reason.
    for (profile, says) in [
        ("nobody", "`nobody` was not defined"),
        ("round", "infinite loop"),
    ] {
        let instance = [
            ("AWS_PROFILE", profile),
            ("AWS_EC2_METADATA_DISABLED", "false"),
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1"),
        ];
        let named = format!("the AWS profile {profile} (AWS_PROFILE) cannot be used");
        said(&instance, &[], &[says, &named]);
    }
    said(
        &[],
        &["--profile", "empty"],
        &["the AWS profile empty: it has no credentials"],
    );
    said(&[], &[], &["none are in the environment, in a profile"]);

    let lost = home.path().join("lost").display().to_string();
    let stale = home.path().join("stale").display().to_string();
    let token = home.path().join("token").display().to_string();
    let role = ("AWS_ROLE_ARN", ROLE);
    let web = |file| ("AWS_WEB_IDENTITY_TOKEN_FILE", file);
    said(
        &[role, web(lost.as_str())],
        &[],
        &[&lost, "AWS_WEB_IDENTITY_TOKEN_FILE must"],
    );
    said(
        &[role, web(stale.as_str())],
        &[],
        &[&stale, "Token expired"],
    );
    said(
        &[web(token.as_str())],
        &[],
        &["AWS_ROLE_ARN environment variable must be set"],
    );

    let place = |url: &'static str| ("AWS_CONTAINER_CREDENTIALS_FULL_URI", url);
    let container = format!("{url}/container");
    let denied = ("AWS_CONTAINER_CREDENTIALS_FULL_URI", container.as_str());
    said(
        &[denied],
        &[],
        &[&container, "403", "AWS_CONTAINER_AUTHORIZATION_TOKEN"],
    );
    let closed = "http://127.0.0.1:1/x";
    said(&[place(closed)], &[], &[closed, "Connection refused"]);
    let far = "http://192.0.2.1/x";
    said(&[place(far)], &[], &[far, "an address of this machine"]);

    let keys = [
        ("AWS_ACCESS_KEY_ID", "OFSHELL"),
        ("AWS_SECRET_ACCESS_KEY", "s"),
    ];
    let denied = format!("{ROLE}/denied");
    said(
        &keys,
        &["--role", &denied],
        &[&format!("the role {denied} could not be assumed")],
    );
}

/// A target that was found before is asked several times, and the SDK keeps the reason why a
/// profile cannot be used for the first call alone.
#[tokio::test(flavor = "multi_thread")]
async fn every_call_says_why_a_profile_cannot_be_used() {
    let made = make(&Wish::default()).await;
    let home = Home::new();
    let url = emulator::endpoint();
    let run = |arguments: &[&str], set: &[(&str, &str)]| {
        let mut command = home.command(&[arguments, &["--listener", &made.listener]].concat());
        let general = [("AWS_ENDPOINT_URL", url.as_str()), ("AWS_REGION", REGION)];
        command.envs(general).envs(set.iter().copied());
        command.output().expect("the binary runs")
    };
    let keys = [
        ("AWS_ACCESS_KEY_ID", "testing"),
        ("AWS_SECRET_ACCESS_KEY", "testing"),
    ];
    let found = run(&["set-weights", "100", "0"], &keys);
    assert_eq!(found.status.code(), Some(0), "{}", stderr(&found));
    for (profile, why) in [
        ("nobody", "`nobody` was not defined"),
        ("round", "infinite loop"),
        ("role-of-nobody", "`nobody` was not defined"),
    ] {
        for arguments in [
            &["status"][..],
            &["set-weights", "90", "10"],
            &["rollback", "--to", "stable"],
        ] {
            let named = [arguments, &["--profile", profile]].concat();
            for output in [
                run(&named, &[]),
                run(arguments, &[("AWS_PROFILE", profile)]),
                run(&named, &keys),
            ] {
                let said = stderr(&output);
                assert!(said.contains(why), "{arguments:?} {profile}: {said}");
                assert!(
                    !said.contains("panicked"),
                    "{arguments:?} {profile}: {said}"
                );
                let code = output.status.code().expect("it ends by itself");
                assert!(
                    [2, 4].contains(&code),
                    "{arguments:?} {profile}: {code}: {said}"
                );
            }
        }
    }
}

/// A service that gives credentials and does not answer now may answer later.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_gives_no_answer_is_not_a_refusal() {
    let (_aws, url) = Aws::start().await;
    let home = Home::new();
    let token = home.path().join("token").display().to_string();
    let web = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.as_str()),
        ("AWS_ROLE_ARN", ROLE),
    ];
    for (set, flags, whose) in [
        (&[][..], &["--profile", "role"][..], "the AWS profile role"),
        (&[], &["--profile", "portal"], "the AWS profile portal"),
        (&web, &[], "the caller"),
    ] {
        let nowhere = [
            ("AWS_ENDPOINT_URL", url.as_str()),
            ("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:1"),
            ("AWS_ENDPOINT_URL_SSO", "http://127.0.0.1:1"),
            ("AWS_MAX_ATTEMPTS", "1"),
        ];
        let output = home.status(&[&nowhere, set].concat(), flags);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        for word in [
            whose,
            "did not answer: Connection refused",
            "AWS_ENDPOINT_URL_STS",
        ] {
            assert!(said.contains(word), "{flags:?}: {said}");
        }
    }
}

/// A program that never ends, for instance because it asks a question that nobody sees.
#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_never_gives_credentials_is_not_waited_for() {
    let (_aws, url) = Aws::start().await;
    let home = Home::new();
    let never = home.path().join("never");
    let made = Command::new("mkfifo").arg(&never).status();
    assert!(made.expect("mkfifo").success());
    let cases = [
        (
            &[][..],
            &["--profile", "program-hangs"][..],
            "the AWS profile program-hangs",
        ),
        (
            &[("AWS_PROFILE", "program-hangs")],
            &[],
            "the AWS profile program-hangs (AWS_PROFILE)",
        ),
        (
            &[],
            &["--profile", "role-of-hanging"],
            "the AWS profile role-of-hanging",
        ),
        (
            &[("AWS_PROFILE", "program-hangs")],
            &["--role", ROLE],
            "the AWS profile program-hangs (AWS_PROFILE)",
        ),
    ];
    std::thread::scope(|scope| {
        for (set, flags, whose) in cases {
            let set = [&[("AWS_ENDPOINT_URL", url.as_str())], set].concat();
            let home = &home;
            scope.spawn(move || {
                let output = home.status(&set, flags);
                let said = stderr(&output);
                assert_eq!(output.status.code(), Some(1), "{said}");
                let why = format!("what gives those of {whose} had not answered after 7s");
                for word in [&why[..], "a credential_process must end by itself"] {
                    assert!(said.contains(word), "{flags:?}: {said}");
                }
            });
        }
    });
    // Whoever still reads comes to an end.
    let mut ends = std::fs::OpenOptions::new();
    drop(ends.read(true).write(true).open(&never));
}

/// An empty variable is none.
#[tokio::test(flavor = "multi_thread")]
async fn the_region_is_the_first_that_somebody_wrote_down() {
    let home = Home::new();
    let (proxy, seen) = wall().await;
    let once = [
        ("HTTPS_PROXY", proxy.as_str()),
        ("AWS_MAX_ATTEMPTS", "1"),
        ("AWS_ACCESS_KEY_ID", "OFSHELL"),
        ("AWS_SECRET_ACCESS_KEY", "s"),
    ];
    let (region, default) = ("AWS_REGION", "AWS_DEFAULT_REGION");
    for (set, flags, wanted) in [
        (
            &[(region, "us-west-2"), (default, "eu-north-1")][..],
            &[][..],
            "us-west-2",
        ),
        (&[(region, ""), (default, "eu-north-1")], &[], "eu-north-1"),
        (&[(region, ""), ("AWS_PROFILE", "empty")], &[], "eu-west-1"),
        (&[(region, ""), (default, "")], &[], "us-east-1"),
        (&[(region, "")], &["--region", "eu-south-1"], "eu-south-1"),
    ] {
        let mut command = home.command(&["status", "--stack", "shop"]);
        let command = command.args(flags).envs(once).envs(set.iter().copied());
        let said = stderr(&command.output().expect("the binary runs"));
        let asked = std::mem::take(&mut *seen.lock().expect("no panic"));
        let host = format!("cloudformation.{wanted}.amazonaws.com:443");
        assert!(
            !asked.is_empty() && asked.iter().all(|a| *a == host),
            "{host}: {asked:?}: {said}"
        );
    }
}

/// A proxy that notes where it should go and lets nothing pass.
async fn wall() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("free");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let seen = Arc::<Mutex<Vec<String>>>::default();
    let asked = seen.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = vec![];
            while !head.ends_with(b"\r\n\r\n") {
                match stream.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => break,
                }
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            let place = head.split(' ').nth(1).unwrap_or_default().to_owned();
            asked.lock().expect("no panic").push(place);
            let answer = b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n";
            let _ = stream.write_all(answer).await;
        }
    });
    (url, seen)
}

/// The hosts that are asked: FIPS, dual stack, both, the region of the ARN; STS and the
/// portal too, through the proxy. What gives credentials on this machine is never asked
/// through it.
#[tokio::test(flavor = "multi_thread")]
async fn endpoints_are_those_that_the_surroundings_ask_for() {
    let (aws, url) = Aws::start().await;
    let home = Home::new();
    let (proxy, seen) = wall().await;
    let once = [
        ("HTTPS_PROXY", proxy.as_str()),
        ("HTTP_PROXY", proxy.as_str()),
        ("AWS_MAX_ATTEMPTS", "1"),
        // Of the surroundings, not of the ARN.
        ("AWS_REGION", "us-east-1"),
    ];
    let keys = [
        ("AWS_ACCESS_KEY_ID", "OFSHELL"),
        ("AWS_SECRET_ACCESS_KEY", "s"),
    ];
    let fips = ("AWS_USE_FIPS_ENDPOINT", "true");
    let dual = ("AWS_USE_DUALSTACK_ENDPOINT", "true");
    let place = format!("{url}/container");
    let container = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", place.as_str()),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "let me in"),
    ];
    let as_role: &[&str] = &["--profile", "role"];
    for (set, flags, host) in [
        (
            &keys[..],
            &[][..],
            "elasticloadbalancing.eu-west-1.amazonaws.com:443",
        ),
        (
            &[keys[0], keys[1], dual],
            &[],
            "elasticloadbalancing.eu-west-1.api.aws:443",
        ),
        (
            &[keys[0], keys[1], fips],
            &[],
            "elasticloadbalancing-fips.eu-west-1.amazonaws.com:443",
        ),
        (
            &[keys[0], keys[1], fips, dual],
            &[],
            "elasticloadbalancing-fips.eu-west-1.api.aws:443",
        ),
        (&[], as_role, "sts.eu-west-1.amazonaws.com:443"),
        (&[fips], as_role, "sts-fips.eu-west-1.amazonaws.com:443"),
        (&[dual], as_role, "sts.eu-west-1.api.aws:443"),
        (
            &[fips, ("AWS_PROFILE", "role")],
            &[],
            "sts-fips.eu-west-1.amazonaws.com:443",
        ),
        (
            &[keys[0], keys[1], fips],
            &["--role", ROLE],
            "sts-fips.eu-west-1.amazonaws.com:443",
        ),
        (
            &[fips],
            &["--profile", "portal"],
            "portal.sso-fips.eu-west-1.amazonaws.com:443",
        ),
        (
            &[fips],
            &["--profile", "web"],
            "sts-fips.eu-west-1.amazonaws.com:443",
        ),
        (&[dual], &["--profile", "web"], "sts.eu-west-1.api.aws:443"),
        (
            &[],
            &["--profile", "portal"],
            "portal.sso.eu-west-1.amazonaws.com:443",
        ),
        (
            &[],
            &["--profile", "web"],
            "sts.eu-west-1.amazonaws.com:443",
        ),
        (
            &container,
            &[],
            "elasticloadbalancing.eu-west-1.amazonaws.com:443",
        ),
    ] {
        let set = [&once, set].concat();
        let said = stderr(&home.status(&set, flags));
        let asked = std::mem::take(&mut *seen.lock().expect("no panic"));
        assert!(
            !asked.is_empty() && asked.iter().all(|a| a == host),
            "{host}: {asked:?}: {said}"
        );
    }
    assert_eq!(aws.take(), ["/container let me in"]);
    let instance = [
        ("AWS_EC2_METADATA_DISABLED", "false"),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", url.as_str()),
        ("AWS_ENDPOINT_URL_ELASTIC_LOAD_BALANCING_V2", url.as_str()),
    ];
    let said = stderr(&home.status(&[&once[..], &instance].concat(), &[]));
    let asked = aws.take();
    assert_eq!(asked[0], "/latest/api/token", "{said}");
    assert_eq!(
        asked.last().map(String::as_str),
        Some("DescribeListeners OFINSTANCE")
    );
    assert_eq!(*seen.lock().expect("no panic"), Vec::<String>::new());

    // One service elsewhere, and the others where they are.
    let own = ("AWS_ENDPOINT_URL_ELASTIC_LOAD_BALANCING_V2", url.as_str());
    let sts = ("AWS_ENDPOINT_URL_STS", url.as_str());
    let portal = ("AWS_ENDPOINT_URL_SSO", url.as_str());
    let ignored = ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true");
    for (set, flags, here, there) in [
        (
            &[keys[0], keys[1], own][..],
            &[][..],
            &["DescribeListeners OFSHELL"][..],
            &[][..],
        ),
        (&[own], as_role, &[], &["sts.eu-west-1.amazonaws.com:443"]),
        (
            &[own, sts],
            as_role,
            &["AssumeRole OFPROFILE", "DescribeListeners OFSTS"],
            &[],
        ),
        (
            &[portal],
            &["--profile", "portal"],
            &["/federation/credentials"],
            &["elasticloadbalancing.eu-west-1.amazonaws.com:443"],
        ),
        (
            &[
                keys[0],
                keys[1],
                ("AWS_ENDPOINT_URL", url.as_str()),
                ignored,
            ],
            &[],
            &[],
            &["elasticloadbalancing.eu-west-1.amazonaws.com:443"],
        ),
    ] {
        let set = [&once, set].concat();
        let said = stderr(&home.status(&set, flags));
        let asked = std::mem::take(&mut *seen.lock().expect("no panic"));
        assert_eq!((aws.take(), asked), (text(here), text(there)), "{said}");
    }
}

fn text(all: &[&str]) -> Vec<String> {
    all.iter().map(|one| (*one).to_owned()).collect()
}

/// How often a service that is busy is asked.
#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_attempts_is_what_the_environment_says() {
    let (aws, url) = Aws::start().await;
    let home = Home::new();
    for (set, attempts, note) in [
        (&[("AWS_MAX_ATTEMPTS", "1")][..], 1, ""),
        (
            &[("AWS_MAX_ATTEMPTS", "2"), ("AWS_RETRY_MODE", "adaptive")],
            2,
            "",
        ),
        (&[], 4, ""),
        (
            &[("AWS_MAX_ATTEMPTS", "0")],
            4,
            "AWS_MAX_ATTEMPTS is \"0\" and not used",
        ),
        (
            &[("AWS_RETRY_MODE", "legacy")],
            4,
            "AWS_RETRY_MODE is \"legacy\" and not used",
        ),
    ] {
        let busy = [
            ("AWS_ENDPOINT_URL", url.as_str()),
            ("AWS_ACCESS_KEY_ID", "BUSY"),
            ("AWS_SECRET_ACCESS_KEY", "s"),
        ];
        let said = stderr(&home.status(&[&busy, set].concat(), &[]));
        assert_eq!(aws.take().len(), attempts, "{set:?}: {said}");
        assert!(said.contains(note), "{said}");
    }
}

/// A secret that was made with `echo` ends in a line break: no header takes it, and AWS knows no
/// such key. It is refused before anything is sent, and shown nowhere.
#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_nothing_can_be_signed_with_are_refused() {
    const HIDDEN: &str = "HIDDENHIDDEN";
    let (aws, url) = Aws::start().await;
    let home = Home::new();
    let given = home.path().join("given.json");
    let json = format!(
        "{{\"Version\":1,\"AccessKeyId\":\"{HIDDEN}\\n\",\"SecretAccessKey\":\"{HIDDEN}\"}}"
    );
    std::fs::write(&given, json).expect("writable");
    let given = given.display();
    let config = home.path().join("config");
    let text = format!(
        "[profile broken]\ncredential_process = cat {given}\n\
         [profile chained]\nrole_arn = {ROLE}\nsource_profile = broken\n\
         [profile written]\naws_access_key_id = {HIDDEN}\u{e4}\naws_secret_access_key = s\n"
    );
    std::fs::write(&config, text).expect("writable");
    let line = format!("{HIDDEN}\n");
    let (line, plain) = (line.as_str(), HIDDEN);
    let control = format!("{HIDDEN}\u{1}x");
    let keys = |id: &str, secret: &str, token: Option<&str>| {
        let mut set = vec![
            ("AWS_ACCESS_KEY_ID".to_owned(), id.to_owned()),
            ("AWS_SECRET_ACCESS_KEY".to_owned(), secret.to_owned()),
        ];
        set.extend(token.map(|token| ("AWS_SESSION_TOKEN".to_owned(), token.to_owned())));
        set
    };
    let profile = |name: &str| vec![("AWS_PROFILE".to_owned(), name.to_owned())];
    for (set, says) in [
        (
            keys(line, plain, None),
            "the access key id, which comes from the environment, has a line break",
        ),
        (
            keys(plain, line, None),
            "the secret access key, which comes from the environment",
        ),
        (
            keys(plain, plain, Some(&control)),
            "the session token, which comes from the environment",
        ),
        (
            keys("\u{e4}", plain, None),
            "the access key id, which comes from the environment",
        ),
        (
            profile("broken"),
            "the access key id, which comes from a credential_process",
        ),
        (
            profile("written"),
            "the AWS profile written (AWS_PROFILE): the access key id",
        ),
        (
            profile("chained"),
            "the AWS profile chained (AWS_PROFILE): a key with which a role",
        ),
    ] {
        for arguments in [
            &["status", "--listener", LISTENER][..],
            &["rollback", "--listener", LISTENER],
            &["switch", "canary", "--listener", LISTENER, "--role", ROLE],
            &["doctor", "--json", "--listener", LISTENER],
        ] {
            let mut command = home.command(arguments);
            command
                .envs(set.iter().cloned())
                .env("AWS_ENDPOINT_URL", &url);
            let output = command.output().expect("the binary runs");
            let said = format!("{}{}", stdout(&output), stderr(&output));
            let code = match arguments[0] {
                "doctor" => 11,
                "rollback" => 4,
                _ => 2,
            };
            assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
            assert!(said.contains(says), "{says}: {said}");
            assert!(said.contains("printf %s"), "{said}");
            assert!(!said.contains(HIDDEN), "{said}");
            assert_eq!(aws.take(), <[&str; 0]>::default(), "{arguments:?}");
        }
    }
}
