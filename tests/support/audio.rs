//! Recordings for tests, made by ffmpeg from packaged speech or from nothing.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A sentence of a LibriVox reader, 16 kHz, about seven seconds.
pub fn librivox() -> PathBuf {
    let folder = Path::new("/usr/share/pocketsphinx/test/data/librivox");
    assert!(folder.is_dir(), "test speech is missing: apt-get install pocketsphinx-testdata");
    let mut clips: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    clips.retain(|path| path.extension().is_some_and(|extension| extension == "wav"));
    clips.sort();
    clips.into_iter().next().expect("pocketsphinx-testdata holds no LibriVox clip")
}

/// The sample call of the demo; `make sample` makes it.
pub fn sample_call() -> PathBuf {
    let folder =
        std::env::var_os("SALAMA_SAMPLE").map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/sample"), PathBuf::from);
    let call = folder.join("sample.wav");
    assert!(call.is_file(), "the sample call is missing: run `make sample`, or set SALAMA_SAMPLE to its folder");
    call
}

/// Runs ffmpeg; the arguments end with the output file.
pub fn ffmpeg(arguments: &[&str]) {
    let output = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-y"])
        .args(arguments)
        .output()
        .expect("ffmpeg is missing: apt-get install ffmpeg");
    assert!(output.status.success(), "ffmpeg {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// `source` in another format, named by the file's ending and these options.
pub fn converted(source: &Path, to: &Path, options: &[&str]) {
    let mut arguments = vec!["-i", source.to_str().unwrap()];
    arguments.extend(options);
    arguments.push(to.to_str().unwrap());
    ffmpeg(&arguments);
}

/// `seconds` of digital silence, 8 kHz mono.
pub fn silence(to: &Path, seconds: u32) {
    let source = format!("anullsrc=r=8000:cl=mono:d={seconds}");
    ffmpeg(&["-f", "lavfi", "-i", &source, to.to_str().unwrap()]);
}
