//! Commands that need no connection: `init`, `enrol`, `model …`.
//! Trusts: the person at the console.
//! Touches: what `init`, `enrol` and `model` touch.
//! Next: standard output.

use indicatif::{ProgressBar, ProgressDrawTarget};

use super::enrol::{self, EnrolArgs};
use super::failure::Failure;
use super::init::{self, InitArgs};
use super::model::{self, ListedModel, ModelCommand, ProvenModel};
use super::output::{Output, clean, size, table};

/// Makes the keys of a new appliance.
pub(super) fn init(output: Output, args: &InitArgs) -> Result<(), Failure> {
    let report = init::init(args)?;
    output.either(&report, |report| {
        let (keys, authority) = (report.keys.display(), report.ca.display());
        format!(
            "the keys are made in {keys}; only this machine's TPM opens them: make a code for the day when it dies (salama keys add recovery)\n\
             clients need the certificate {authority}; next: salama enrol NAME --role ROLE"
        )
    })
}

/// Issues a certificate.
pub(super) fn enrol(output: Output, args: &EnrolArgs) -> Result<(), Failure> {
    let report = enrol::enrol(args)?;
    output.either(&report, |report| {
        let what = if report.with_key { "certificate and private key" } else { "certificate" };
        format!("{what} of {} written to {}", report.identity, report.file.display())
    })
}

/// Imports, verifies, lists.
pub(super) fn model(output: Output, command: &ModelCommand) -> Result<(), Failure> {
    match command {
        ModelCommand::Import(args) => {
            let spinner = output.moves().then(|| ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()));
            let imported = model::import(args, &mut |step| match &spinner {
                Some(spinner) => spinner.set_message(step.words()),
                None => output.note(step.words()),
            });
            if let Some(spinner) = spinner {
                spinner.finish_and_clear();
            }
            output.either(&imported?, ToString::to_string)
        }
        ModelCommand::Verify { directory, files_only } => {
            let model = model::verify(directory)?;
            let golden = if *files_only { None } else { model::golden(directory)? };
            output.either(&ProvenModel { model, golden }, ToString::to_string)
        }
        ModelCommand::List { directory } => {
            let listed = model::list(directory).map_err(|cause| Failure::Read { path: directory.clone(), cause })?;
            output.either(&listed, |listed| models(listed))?;
            let refused = listed.iter().filter(|model| model.refused.is_some()).count();
            if refused > 0 { Err(Failure::ModelsRefused(refused)) } else { Ok(()) }
        }
    }
}

fn models(listed: &[ListedModel]) -> String {
    if listed.is_empty() {
        return "there are no models".to_owned();
    }
    let head = ["MODEL", "VERSION", "SIZE", "LICENCE", "MANIFEST"].map(str::to_owned).to_vec();
    let row = |listed: &ListedModel| match &listed.model {
        Some(model) => {
            let digest: String = model.manifest_sha256.chars().take(16).collect();
            vec![clean(&model.name), clean(&model.version), size(model.bytes), clean(&model.licence), digest]
        }
        None => vec![clean(&listed.directory), format!("REFUSED: {}", clean(listed.refused.as_deref().unwrap_or_default()))],
    };
    let (good, bad): (Vec<_>, Vec<_>) = listed.iter().partition(|listed| listed.model.is_some());
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(good.into_iter().map(row)).collect();
    // Refusals are sentences: they would stretch the columns.
    table(&rows) + &table(&bad.into_iter().map(row).collect::<Vec<_>>())
}
