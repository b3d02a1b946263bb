//! `salama burst`: a supervisor's signed word that more calls than usual may be opened for a while.
//! Trusts: of the appliance, the name of the keeper's start; a false one makes a grant that does not count. Everything else that is
//! signed was typed here, or stands in the own certificate.
//! Touches: the appliance; the private key of the identity.
//! Next: the key keeper judges it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, ValueEnum};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};

use super::client::Client;
use super::failure::Failure;
use super::output::Output;
use crate::base::clock::Timestamp;
use crate::base::hex::{hex, unhex};
use crate::identity::peer::Claim;
use crate::ipc::burst::{BurstGrant, COUNT_MAX, LIFETIME_MAX};
use crate::ipc::keeper::UnwrapPurpose;

/// A grant begins a little in the past, for an appliance whose clock is slow.
const SLOW_CLOCKS: u64 = 120;

/// Arguments of `salama burst`.
#[derive(Clone, Copy, Debug, Args)]
pub struct BurstArgs {
    /// How many calls more than the limits allow.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(COUNT_MAX)))]
    pub count: u32,
    /// For how long, as 90s, 30m or 1h; at most 58m.
    #[arg(long = "for", value_name = "TIME", value_parser = lifetime)]
    pub lifetime: Duration,
    /// For whom.
    #[arg(long, value_enum, default_value = "read")]
    pub kind: Kind,
}

/// Whom a grant is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// People and machines that read calls.
    Read,
    /// Transcription.
    Job,
}

#[derive(Deserialize)]
struct Terms {
    start: String,
}

#[derive(Serialize)]
struct Question {
    grant: String,
    signature: String,
    certificate: String,
}

#[derive(Serialize, Deserialize)]
struct Taken {
    status: String,
}

/// Writes, signs and sends a grant.
pub(super) async fn burst(client: &Client, output: Output, args: &BurstArgs) -> Result<(), Failure> {
    let signer = client.signer()?;
    let own = Claim::read(signer.certificate()).map_err(|error| Failure::Configuration(format!("your identity names nobody: {error}")))?;
    let terms: Terms = client.get("/api/v1/key-bursts").await?;
    let start = unhex(&terms.start).ok_or_else(|| Failure::Reply("`start` is no 32 hexadecimal digits".to_owned()))?;
    let mut nonce = [0; 16];
    SystemRandom::new().fill(&mut nonce).map_err(|_| Failure::Configuration("the system gives no random bytes".to_owned()))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let until = now.saturating_add(args.lifetime.as_secs());
    let purpose = match args.kind {
        Kind::Read => UnwrapPurpose::Read,
        Kind::Job => UnwrapPurpose::Job,
    };
    let from = now.saturating_sub(SLOW_CLOCKS);
    let grant = BurstGrant { box_name: own.box_name().to_owned(), start, purpose, count: args.count, from, until, nonce }.to_string();
    let signature = hex(&signer.sign(grant.as_bytes())?);
    let certificate = pem::encode(&pem::Pem::new("CERTIFICATE", signer.certificate()));
    let taken: Taken = client.post("/api/v1/key-bursts", Some(&Question { grant, signature, certificate })).await?;
    let end = Timestamp::from_unix_millis(until.saturating_mul(1000)).rfc3339();
    output.either(&taken, |_| {
        format!("until {end}, {} calls more than usual may be opened; the journal says that you allowed it", args.count)
    })
}

fn lifetime(text: &str) -> Result<Duration, String> {
    let most = LIFETIME_MAX - SLOW_CLOCKS;
    let wrong = || format!("write a number and s, m or h, from 1s to {}m", most / 60);
    let digits = text.trim_end_matches(['s', 'm', 'h']);
    let factor = match text.strip_prefix(digits) {
        Some("s") => 1,
        Some("m") => 60,
        Some("h") => 3600,
        _ => return Err(wrong()),
    };
    let seconds = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    seconds.filter(|seconds| (1..=most).contains(seconds)).map(Duration::from_secs).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_its_unit_and_ends_within_the_hour() {
        assert_eq!([lifetime("90s"), lifetime("30m"), lifetime("58m")].map(|time| time.unwrap().as_secs()), [90, 1800, 3480]);
        for wrong in ["", "30", "m", "59m", "1h", "0s", "-1m", "5 m", "5mm", "18446744073709551615h"] {
            assert!(lifetime(wrong).is_err(), "{wrong}");
        }
    }
}
