//! x
/// x
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The verified model has no such file.
    #[error("the model has no file {name}, or it was taken before; its manifest does not fit its purpose")]
    NoFile {
        /// The file.
        name: String,
    },
}
