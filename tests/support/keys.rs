//! Opens an appliance's keys and records as only its own TPM can, so that a test knows what to search for.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use ring::hkdf;
use salama::base::secret::Secret;
use salama::ipc::keeper::{EpochRequest, UnwrapPurpose, WrappedDek};
use salama::ipc::transcript::Utterance;
use salama::keys::Keeper;
use salama::record::envelope::Envelope;
use salama::record::index::IndexKeys;
use salama::record::schema::{Slot, Table};
use salama::record::store::{OpenStore, Store};
use salama::supervisor::program;
use tempfile::TempDir;

use super::appliance::{Appliance, program as built};

type Named = (String, Vec<u8>);

/// A copy of an appliance's records with a keeper of its own beside it.
pub struct OpenedCopy {
    keeper: Keeper,
    index: IndexKeys,
    index_key: Vec<u8>,
    store: Store,
    // Dropped after the store.
    _folder: TempDir,
}

impl OpenedCopy {
    /// The daemon may run, but must commit nothing meanwhile.
    pub fn of(appliance: &Appliance) -> Self {
        let folder = TempDir::new().unwrap();
        fs::copy(appliance.state().join("store.redb"), folder.path().join("store.redb")).unwrap();
        // The daemon's own keeper lets no other count beside it.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o711)).unwrap();
        let keys = folder.path().join("keys");
        assert!(Command::new("cp").arg("-a").arg(appliance.keys()).arg(&keys).status().unwrap().success());
        let arguments = ["serve", "--directory", keys.to_str().unwrap(), "--tpm", &appliance.tpm(), "--user", "salama-keeper"];
        let started = program::spawn(&built("salama-keeper"), arguments).unwrap();
        let (keeper, greeting) = Keeper::connect(started.channel).unwrap();
        let index = IndexKeys::derive(&greeting.index_key).unwrap();
        let store = OpenStore::open(folder.path(), 4096, &index).unwrap().start().unwrap();
        Self { keeper, index, index_key: greeting.index_key.expose().to_vec(), store, _folder: folder }
    }

    /// The key of `call` and all that is derived from it.
    pub fn call_keys(&self, call: &str) -> Vec<Named> {
        let dek = self.dek(call);
        let derived = |info: &[&str]| expand(b"salama store 1", dek.expose(), info);
        let mut keys = vec![(format!("the key of call {call}"), dek.expose().to_vec())];
        keys.push((format!("the audio key of call {call}"), derived(&["salama sub-key 1 ", "audio"])));
        for table in [Table::Clear, Table::Redacted, Table::Entities, Table::Metadata] {
            keys.push((format!("the {} key of call {call}", table.name()), derived(&["salama record key 1 ", table.name()])));
        }
        keys
    }

    /// The words of the clear transcript of `call`.
    pub fn words_said(&self, call: &str) -> Vec<String> {
        let slot = Slot::of_call(Table::Clear, call.parse().unwrap());
        let sealed = self.store.get(&slot).unwrap().expect("a clear transcript");
        let said: Vec<Utterance> = Envelope::of_call(self.dek(call)).open_value(&slot, &sealed).unwrap();
        said.into_iter().flat_map(|utterance| utterance.words).map(|word| word.text).collect()
    }

    /// The root key, opened by the TPM's own tools, and every key under it.
    pub fn long_term_keys(&self, appliance: &Appliance) -> Vec<Named> {
        let root = unsealed(appliance);
        let derived = |label: &str| (format!("the long-term key `{label}`"), expand(b"salama root key v1", &root, &[label]));
        let mut keys: Vec<Named> = [
            "record kek",
            "index",
            "audit",
            "token",
            "ca wrap",
            "tls wrap",
            "file mac",
            "tpm lockout",
            "tpm epoch",
            "erasure wrap",
            "audit sign",
        ]
        .map(derived)
        .into();
        assert_eq!(keys[1].1, self.index_key, "this test derives keys as the keeper does");
        keys.push(("the root key".to_owned(), root));
        keys
    }

    /// Whether the keeper opens the call's key, also when it is told that the store is of any other epoch.
    pub fn opens(&self, call: &str) -> bool {
        let call = call.parse().unwrap();
        let slot = Slot::of_call(Table::WrappedDek, call);
        let Some(sealed) = self.store.get(&slot).unwrap() else { return false };
        let wrapped: WrappedDek = self.index.envelope().open_value(&slot, &sealed).unwrap();
        let lies = (0..4).map(Some).chain([None]);
        let opens = || self.keeper.unwrap_dek(call, &wrapped, UnwrapPurpose::Read).is_ok();
        opens() || lies.into_iter().any(|store| self.keeper.epoch(EpochRequest::Settle { store }).is_ok() && opens())
    }

    fn dek(&self, call: &str) -> Secret<32> {
        let call = call.parse().unwrap();
        let slot = Slot::of_call(Table::WrappedDek, call);
        let wrapped: WrappedDek = self.index.envelope().open_value(&slot, &self.store.get(&slot).unwrap().unwrap()).unwrap();
        self.keeper.unwrap_dek(call, &wrapped, UnwrapPurpose::Read).unwrap()
    }
}

/// HKDF-SHA-256 to 32 bytes.
fn expand(salt: &[u8], key: &[u8], info: &[&str]) -> Vec<u8> {
    struct Bytes;
    impl hkdf::KeyType for Bytes {
        fn len(&self) -> usize {
            32
        }
    }
    let info: Vec<&[u8]> = info.iter().map(|part| part.as_bytes()).collect();
    let mut key_of = vec![0; 32];
    hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(key).expand(&info, Bytes).unwrap().fill(&mut key_of).unwrap();
    key_of
}

/// Of `keyslots`: the head before the slots, then the first slot as far as the root key. Read here once more, as the file's format says.
#[derive(serde::Deserialize)]
struct Slots {
    _generation: u64,
    _next: u32,
    _lockout: Vec<Vec<u8>>,
    _leftovers: Vec<((Vec<u8>, u32), u32)>,
    slots: Vec<Slot1>,
}

#[derive(serde::Deserialize)]
struct Slot1 {
    _id: u32,
    _made: u64,
    _opened: u64,
    kind: Kind1,
}

#[derive(serde::Deserialize)]
enum Kind1 {
    Tpm(TpmSlot1),
}

#[derive(serde::Deserialize)]
struct TpmSlot1 {
    _storage_root: (Vec<u8>, u32),
    _policy: (Option<()>, Option<()>, bool),
    _pin: Option<()>,
    sealed: (Vec<u8>, Vec<u8>),
    half: u32,
    wrapped: Vec<u8>,
}

/// What the keyslot holds, by tpm2-tools past the wiretap, for they send it in clear.
fn unsealed(appliance: &Appliance) -> Vec<u8> {
    const HEADER: usize = 18;
    const TRAILER: usize = 64;
    let file = fs::read(appliance.keys().join("keyslots")).unwrap();
    let body = &file[HEADER..file.len() - TRAILER];
    let slots: Slots = postcard::from_bytes(body).unwrap();
    let Kind1::Tpm(slot) = slots.slots.into_iter().next().unwrap().kind;
    let (half, wrapped) = (slot.half, slot.wrapped);
    let (public, private) = slot.sealed;
    let (tpm, folder) = (&appliance.swtpm, appliance.swtpm.directory());
    for (name, bytes) in [("public", public), ("private", private)] {
        // The tools want their lengths before them.
        let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
        fs::write(folder.join(name), [&length[..], &bytes].concat()).unwrap();
    }
    let attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|decrypt|restricted";
    tpm.tool("tpm2_createprimary", &["-Q", "-C", "o", "-g", "sha256", "-G", "ecc256:aes128cfb", "-a", attributes, "-c", "storage-root"]);
    tpm.tool("tpm2_load", &["-Q", "-C", "storage-root", "-u", "public", "-r", "private", "-c", "object"]);
    tpm.tool("tpm2_flushcontext", &["-t"]);
    tpm.tool("tpm2_startauthsession", &["-Q", "--policy-session", "-S", "session"]);
    tpm.tool("tpm2_policycommandcode", &["-Q", "-S", "session", "TPM2_CC_Unseal"]);
    tpm.tool("tpm2_unseal", &["-Q", "-c", "object", "-p", "session:session", "-o", "slot-key"]);
    tpm.tool("tpm2_flushcontext", &["session"]);
    tpm.tool("tpm2_flushcontext", &["-t"]);
    let key = fs::read(folder.join("slot-key")).unwrap();
    let password: String = expand(b"salama slot key v1", &key, &["nv auth"]).iter().map(|byte| format!("{byte:02x}")).collect();
    let (index, password) = (format!("0x{half:08x}"), format!("hex:{password}"));
    tpm.tool("tpm2_nvread", &["-C", &index, "-P", &password, "-o", "half", &index]);
    let both = [key, fs::read(folder.join("half")).unwrap()].concat();
    open_wrapped(&expand(b"salama slot key v1", &both, &["wrap"]), half, &wrapped)
}

/// `keeper::wrap` says the format.
fn open_wrapped(key: &[u8], half: u32, wrapped: &[u8]) -> Vec<u8> {
    use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
    let (header, sealed) = wrapped.split_at(1 + 4 + 12);
    let aad = [b"root key", &[0][..], &header[..5], &half.to_be_bytes()].concat();
    let nonce = Nonce::try_assume_unique_for_key(&header[5..]).unwrap();
    let mut opened = sealed.to_vec();
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).unwrap());
    key.open_in_place(nonce, Aad::from(aad), &mut opened).unwrap().to_vec()
}
