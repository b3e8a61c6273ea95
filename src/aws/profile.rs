//! Inspects the AWS profile in use. This module rejects logins that the program does not support, and sets a session
//! name for a role.
//!
//! The features `sso` and `credentials-login` of `aws-config` are off, for the reason given in Cargo.toml. Without
//! `sso` and `credentials-login`, the library reports an unsupported login only when it needs credentials. If this
//! module did not reject unsupported logins, a service would retry an unsupported login forever.

use aws_config::profile::{Profile, ProfileSet, load};
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use aws_types::os_shim_internal::{Env, Fs};

use crate::failure::Failure;

/// Maximum number of `source_profile` links that this module follows. Real chains of profiles have two or three links.
const CHAIN_LENGTH_MAX: usize = 16;
/// The session name for a role, if the role's profile sets no session name.
const SESSION_NAME: &str = "citystream";

/// Returns a failure if the AWS profile in use has a login that this program does not support.
///
/// Returns `None` if environment variables provide the credentials.
pub async fn refusal() -> Option<Failure> {
    let is_set = |name| std::env::var(name).is_ok_and(|value| !value.is_empty());
    if is_set("AWS_ACCESS_KEY_ID") && is_set("AWS_SECRET_ACCESS_KEY") {
        return None;
    }
    login_refusal(&load_profiles().await?)
}

/// Returns the profile files, with a session name added for the role that the profile assumes.
///
/// Without a session name, the AWS library chooses a new name each time it assumes the role. MSK treats each session
/// name as a separate user, and does not allow a connection to log in again as another user.
pub async fn files_with_session_name() -> EnvConfigFiles {
    let files = EnvConfigFiles::builder()
        .include_default_config_file(true)
        .include_default_credentials_file(true);
    let addition = load_profiles()
        .await
        .and_then(|profiles| session_name_file(&profiles));
    match addition {
        Some(text) => files.with_contents(EnvConfigFileKind::Config, text).build(),
        None => files.build(),
    }
}

/// Loads the AWS profiles. Returns `None` if a profile file is invalid. The AWS library itself reports an error for an
/// invalid profile file.
async fn load_profiles() -> Option<ProfileSet> {
    load(&Fs::real(), &Env::real(), &EnvConfigFiles::default(), None)
        .await
        .ok()
}

/// Returns the last profile in the chain of `source_profile` links, which is the profile that contains the credentials.
fn credentials_profile(profiles: &ProfileSet) -> Option<&Profile> {
    let mut profile = profiles.get_profile(profiles.selected_profile())?;
    for _ in 0..CHAIN_LENGTH_MAX {
        let takes_a_role = profile.get("role_arn").is_some();
        match profile.get("source_profile").filter(|_| takes_a_role) {
            Some(next) if next != profile.name() => profile = profiles.get_profile(next)?,
            _ => return Some(profile),
        }
    }
    None
}

fn login_refusal(profiles: &ProfileSet) -> Option<Failure> {
    let profile = credentials_profile(profiles)?;
    let has = |names: &[&str]| names.iter().any(|name| profile.get(name).is_some());
    // If a profile contains several kinds of login, the AWS library tries the kinds in a fixed order and uses the first
    // match. The `if` conditions below have the same order as in the AWS library.
    let way = if has(&["credential_source", "web_identity_token_file"]) {
        return None;
    } else if has(&["sso_session", "sso_start_url", "sso_account_id"]) {
        "by IAM Identity Center (SSO)"
    } else if has(&["login_session"]) {
        "by aws login"
    } else {
        return None;
    };
    let name = profile.name();
    let what = format!("AWS profile {name} logs in {way}, which this program does not support");
    Some(Failure::new(what).with_remedy(format!(
        "set AWS_PROFILE to a profile with a region and: credential_process = aws configure \
         export-credentials --profile {name} --format process"
    )))
}

/// Returns the text of an AWS config file that adds a session name to the selected profile. Returns `None` if the
/// profile has no role, or already has a session name.
fn session_name_file(profiles: &ProfileSet) -> Option<String> {
    let name = profiles.selected_profile();
    let profile = profiles.get_profile(name)?;
    let is_nameless =
        profile.get("role_arn").is_some() && profile.get("role_session_name").is_none();
    let section = if name == "default" {
        name.to_owned()
    } else {
        format!("profile {name}")
    };
    is_nameless.then(|| format!("[{section}]\nrole_session_name = {SESSION_NAME}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn parsed(name: &'static str, config: &str) -> ProfileSet {
        let files = EnvConfigFiles::builder()
            .with_contents(EnvConfigFileKind::Config, config)
            .build();
        let (fs, env) = (Fs::from_slice(&[]), Env::from_slice(&[]));
        load(&fs, &env, &files, Some(name.into())).await.unwrap()
    }

    const CONFIG: &str = "
[default]
region = eu-west-1
aws_access_key_id = a
aws_secret_access_key = b
[profile sso]
sso_session = work
sso_account_id = 123456789012
sso_role_name = admin
[profile old]
sso_start_url = https://example.awsapps.com/start
sso_region = eu-west-1
[profile login]
login_session = arn:aws:iam::123456789012:user/ann
[profile role]
role_arn = arn:aws:iam::123456789012:role/citystream
source_profile = sso
[profile own]
role_arn = arn:aws:iam::123456789012:role/citystream
source_profile = default
role_session_name = mine
[profile instance]
role_arn = arn:aws:iam::123456789012:role/citystream
credential_source = Ec2InstanceMetadata
[profile process]
credential_process = aws configure export-credentials --profile sso --format process
[profile circle]
role_arn = arn:aws:iam::123456789012:role/citystream
source_profile = back
[profile back]
role_arn = arn:aws:iam::123456789012:role/citystream
source_profile = circle
";

    #[tokio::test]
    async fn a_profile_that_needs_a_browser_is_refused_with_a_remedy() {
        for (name, words) in [
            ("sso", "AWS profile sso logs in by IAM Identity Center"),
            ("old", "AWS profile old logs in by IAM Identity Center"),
            ("login", "AWS profile login logs in by aws login"),
            ("role", "AWS profile sso logs in by IAM Identity Center"),
        ] {
            let refusal = login_refusal(&parsed(name, CONFIG).await)
                .expect(name)
                .to_string();
            assert!(refusal.starts_with(words), "{refusal}");
            assert!(
                refusal.contains("export-credentials --profile"),
                "{refusal}"
            );
        }
        for name in ["default", "own", "instance", "process", "circle", "absent"] {
            assert_eq!(login_refusal(&parsed(name, CONFIG).await), None, "{name}");
        }
    }

    #[tokio::test]
    async fn a_role_keeps_its_session_name_when_credentials_are_renewed() {
        for (name, wanted) in [
            (
                "role",
                Some("[profile role]\nrole_session_name = citystream\n"),
            ),
            (
                "instance",
                Some("[profile instance]\nrole_session_name = citystream\n"),
            ),
            ("own", None),
            ("default", None),
            ("absent", None),
        ] {
            let addition = session_name_file(&parsed(name, CONFIG).await);
            assert_eq!(addition.as_deref(), wanted, "{name}");
            // The AWS library merges the added config file with the profile from the user's config file.
            if let Some(addition) = addition {
                let merged = parsed(name, &format!("{CONFIG}{addition}")).await;
                let profile = merged.get_profile(name).unwrap();
                assert_eq!(profile.get("role_session_name"), Some("citystream"));
                assert!(profile.get("role_arn").is_some());
            }
        }
    }
}
