//! The two commands of the TPM's lockout hierarchy that tss-esapi 7.7 lacks, on a context of their own.
//! Trusts: libtss2-esys.
//! Touches: the TPM.
//! Next: `keeper::tpm::lockout` calls it. Mounted there and not in `sys`, so that no other program needs libtss2.

#![expect(unsafe_code, reason = "raw calls of a C library; a part of `sys`")]

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::ptr::{null, null_mut};

use tss_esapi::tss2_esys::{
    ESYS_CONTEXT, ESYS_TR, ESYS_TR_NONE, ESYS_TR_RH_LOCKOUT, Esys_DictionaryAttackLockReset, Esys_DictionaryAttackParameters,
    Esys_Finalize, Esys_FlushContext, Esys_Initialize, Esys_StartAuthSession, Esys_TR_SetAuth, TPM2B_AUTH, TPMT_SYM_DEF, TSS2_RC,
    TSS2_TCTI_CONTEXT, Tss2_TctiLdr_Finalize, Tss2_TctiLdr_Initialize,
};
use zeroize::Zeroize as _;

/// The TPM or libtss2 refused; the code is theirs (TSS2_RC).
#[derive(Debug, thiserror::Error)]
#[error("the TPM answered 0x{0:x}")]
pub struct RawError(pub u32);

type Result<T> = std::result::Result<T, RawError>;

// TCG "TPM 2.0 Library", part 2: 6.3 and 6.11. The crate's bindings keep them to themselves.
const TPM2_ALG_NULL: u16 = 0x0010;
const TPM2_ALG_SHA256: u16 = 0x000b;
const TPM2_SE_HMAC: u8 = 0;

/// `TSS2_ESYS_RC_BAD_VALUE`.
const BAD_VALUE: RawError = RawError(0x0007_000b);

/// Of the dictionary-attack protection.
#[derive(Clone, Copy, Debug)]
pub struct Parameters {
    /// Wrong tries until the TPM locks.
    pub tries: u32,
    /// Seconds until one is forgiven.
    pub forgiven_after: u32,
    /// Seconds that the lockout hierarchy is shut after a wrong password of its own.
    pub recovery: u32,
}

/// Loads the library of a transport and never lets it go: a process that can map no code any more finds it there. One that cannot be
/// loaded is reported when it is needed.
pub fn keep_transport(library: &CStr) {
    // SAFETY: the name ends with a zero byte; what runs at loading is the library's own initialisation, as libtss2 runs it itself.
    unsafe { libc::dlopen(library.as_ptr(), libc::RTLD_NOW | libc::RTLD_NODELETE) };
}

/// `TPM2_DictionaryAttackParameters`, authorised by the lockout hierarchy's password.
///
/// # Errors
/// What the TPM or libtss2 says.
pub fn set_lockout_parameters(tcti: &str, password: &[u8], parameters: Parameters) -> Result<()> {
    let Parameters { tries, forgiven_after, recovery } = parameters;
    let mut context = Context::new(tcti)?;
    context.with_lockout(password, |esys, session| {
        // SAFETY: `esys` is an initialised context, `session` one of its sessions; the command takes numbers only.
        unsafe {
            Esys_DictionaryAttackParameters(esys, ESYS_TR_RH_LOCKOUT, session, ESYS_TR_NONE, ESYS_TR_NONE, tries, forgiven_after, recovery)
        }
    })
}

/// `TPM2_DictionaryAttackLockReset`, authorised by the lockout hierarchy's password.
///
/// # Errors
/// What the TPM or libtss2 says.
pub fn reset_lockout(tcti: &str, password: &[u8]) -> Result<()> {
    let mut context = Context::new(tcti)?;
    context.with_lockout(password, |esys, session| {
        // SAFETY: `esys` is an initialised context, `session` one of its sessions; the command takes nothing else.
        unsafe { Esys_DictionaryAttackLockReset(esys, ESYS_TR_RH_LOCKOUT, session, ESYS_TR_NONE, ESYS_TR_NONE) }
    })
}

/// An ESYS context and the transport below it; both are given back when it is dropped.
struct Context {
    esys: *mut ESYS_CONTEXT,
    tcti: *mut TSS2_TCTI_CONTEXT,
}

impl Context {
    fn new(tcti: &str) -> Result<Self> {
        let name = CString::new(tcti).map_err(|_| BAD_VALUE)?;
        let mut context = Self { esys: null_mut(), tcti: null_mut() };
        // SAFETY: `name` ends with a zero byte and outlives the call; the pointer is written before it is read.
        checked(unsafe { Tss2_TctiLdr_Initialize(name.as_ptr(), &raw mut context.tcti) })?;
        // SAFETY: the transport was initialised just now and lives as long as `context`; null asks for the library's own version.
        checked(unsafe { Esys_Initialize(&raw mut context.esys, context.tcti, null_mut()) })?;
        Ok(context)
    }

    /// Runs one command in an HMAC session: the password itself is never sent.
    fn with_lockout(&mut self, password: &[u8], command: impl FnOnce(*mut ESYS_CONTEXT, ESYS_TR) -> TSS2_RC) -> Result<()> {
        let mut auth = TPM2B_AUTH { size: 0, buffer: [0; 64] };
        auth.size = u16::try_from(password.len()).map_err(|_| BAD_VALUE)?;
        let place = auth.buffer.get_mut(..password.len()).ok_or(BAD_VALUE)?;
        place.copy_from_slice(password);
        // SAFETY: the context is initialised; `auth` is a whole structure that the library copies.
        let set = checked(unsafe { Esys_TR_SetAuth(self.esys, ESYS_TR_RH_LOCKOUT, &raw const auth) });
        auth.buffer.zeroize();
        set?;
        let session = self.session()?;
        let done = checked(command(self.esys, session));
        // SAFETY: the session is this context's and is used no more.
        let flushed = checked(unsafe { Esys_FlushContext(self.esys, session) });
        done.and(flushed)
    }

    /// Not salted: the password is a random key of 32 bytes, which nobody finds by trying; and nothing secret is a parameter.
    fn session(&mut self) -> Result<ESYS_TR> {
        let mut session = ESYS_TR_NONE;
        let mut symmetric = MaybeUninit::<TPMT_SYM_DEF>::zeroed();
        // SAFETY: all bytes zero are a value of this structure of numbers and unions of numbers.
        let symmetric = unsafe {
            (*symmetric.as_mut_ptr()).algorithm = TPM2_ALG_NULL;
            symmetric.assume_init()
        };
        // SAFETY: the context is initialised; the structure outlives the call; a null nonce asks the library to make one.
        checked(unsafe {
            Esys_StartAuthSession(
                self.esys,
                ESYS_TR_NONE,
                ESYS_TR_NONE,
                ESYS_TR_NONE,
                ESYS_TR_NONE,
                ESYS_TR_NONE,
                null(),
                TPM2_SE_HMAC,
                &raw const symmetric,
                TPM2_ALG_SHA256,
                &raw mut session,
            )
        })?;
        Ok(session)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: both were initialised or are null, which the library takes for nothing; the context goes before its transport.
        unsafe {
            if !self.esys.is_null() {
                Esys_Finalize(&raw mut self.esys);
            }
            if !self.tcti.is_null() {
                Tss2_TctiLdr_Finalize(&raw mut self.tcti);
            }
        }
    }
}

fn checked(code: TSS2_RC) -> Result<()> {
    if code == 0 { Ok(()) } else { Err(RawError(code)) }
}
