//! Opens a stopped appliance's keys as the daemon would, so that a test knows what to search for.

use salama::ipc::keeper::{UnwrapPurpose, WrappedDek};
use salama::keys::Keeper;
use salama::record::index::IndexKeys;
use salama::record::schema::{Slot, Table};
use salama::record::store::OpenStore;
use salama::supervisor::program;

use super::appliance::{Appliance, program as built};

/// The keys of `call` and of the index, by name. The daemon must not run.
pub fn opened(appliance: &Appliance, call: &str) -> Vec<(&'static str, Vec<u8>)> {
    let keys = appliance.keys();
    let tpm = appliance.swtpm.tcti();
    let arguments = ["serve", "--directory", keys.to_str().unwrap(), "--tpm", &tpm, "--user", "salama-keeper"];
    let started = program::spawn(&built("salama-keeper"), arguments).unwrap();
    let (keeper, greeting) = Keeper::connect(started.channel).unwrap();
    let index = IndexKeys::derive(&greeting.index_key).unwrap();
    let store = OpenStore::open(&appliance.state(), 16 << 20).unwrap().start().unwrap();

    let call = call.parse().unwrap();
    let slot = Slot::of_call(Table::WrappedDek, call);
    let wrapped: WrappedDek = index.envelope().open_value(&slot, &store.get(&slot).unwrap().unwrap()).unwrap();
    let dek = keeper.unwrap_dek(call, &wrapped, UnwrapPurpose::Read).unwrap();
    vec![("the call's key", dek.expose().to_vec()), ("the index key", greeting.index_key.expose().to_vec())]
}
