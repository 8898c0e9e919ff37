//! The credentials that `docker login` stored on this machine.

use crate::supply::{TEXT_BYTES_MAX, files};
use std::fmt;
use std::io::Read as _;
use std::path::Path;

use docker_credential::{CredentialRetrievalError, DockerCredential};

use super::error::RegistryError;

/// Credentials, with a description of them.
pub(super) struct Credentials {
    pub(super) login: Option<Login>,
    /// As in "it was asked ...".
    pub(super) asked: String,
}

/// A name and its password, which is never printed.
#[derive(PartialEq, Eq)]
pub(super) struct Login {
    pub(super) name: String,
    pub(super) password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Login({:?})", self.name)
    }
}

/// The name under which Docker Hub's credentials are kept.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// Reads `config.json` in the folder. It may run a credential helper, which can
/// take a while.
pub(super) fn find(folder: Option<&Path>, registry: &str) -> Result<Credentials, RegistryError> {
    let nobody = |why: String| {
        Ok(Credentials {
            login: None,
            asked: format!("without credentials, because {why}"),
        })
    };
    let Some(folder) = folder else {
        return nobody("no Docker config was given".to_owned());
    };
    let path = folder.join("config.json");
    let shown = path.display().to_string();
    let fail = |found: String, hint: String| {
        Err(RegistryError::File {
            file: shown.clone(),
            found,
            hint,
        })
    };
    let file = match files::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return nobody(format!("there is no {shown}"));
        }
        Err(e) => return fail(e.to_string(), "check who may read it".to_owned()),
    };
    let key = match registry {
        "docker.io" | "index.docker.io" => DOCKER_HUB,
        other => other,
    };
    let login = format!("docker login {registry}");
    match docker_credential::get_credential_from_reader(
        std::io::BufReader::new(file.take(TEXT_BYTES_MAX)),
        key,
    ) {
        Ok(DockerCredential::UsernamePassword(name, password)) => Ok(Credentials {
            asked: format!("as {name:?}, by {shown}"),
            login: Some(Login { name, password }),
        }),
        Ok(DockerCredential::IdentityToken(_)) => fail(
            format!("it has an identity token for {registry}, and those cannot be used here"),
            format!("{login} --username NAME with a password or an access token"),
        ),
        Err(CredentialRetrievalError::NoCredentialConfigured) => {
            nobody(format!("{shown} has no credentials for {registry}"))
        }
        // These are Docker's words, the same in every helper.
        Err(CredentialRetrievalError::HelperFailure { stdout, helper, .. })
            if stdout.contains("credentials not found") =>
        {
            nobody(format!(
                "{helper}, named in {shown}, has no credentials for {registry}"
            ))
        }
        Err(CredentialRetrievalError::HelperFailure {
            stdout,
            stderr,
            helper,
        }) => {
            let said: String = format!("{stdout}{stderr}").chars().take(200).collect();
            fail(format!("{helper} failed: {}", said.trim()), login)
        }
        Err(CredentialRetrievalError::HelperCommunicationError) => fail(
            "the credential helper that it names cannot be started".to_owned(),
            "install that program (docker-credential-...), or remove it from the file".to_owned(),
        ),
        Err(error) => fail(format!("{error} for {registry}"), login),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_hub_has_another_name_in_the_config() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path();
        // Only a helper is looked up by exactly this name, and this one does not exist.
        let config = r#"{"credHelpers": {"https://index.docker.io/v1/": "of-no-such-name"}}"#;
        std::fs::write(folder.join("config.json"), config).expect("written");
        let found = find(Some(folder), "docker.io").map(|found| found.login);
        let other = find(Some(folder), "docker.example").map(|found| found.login);
        assert!(
            matches!(found, Err(RegistryError::File { .. })),
            "{found:?}"
        );
        assert_eq!(other, Ok(None));
    }
}
