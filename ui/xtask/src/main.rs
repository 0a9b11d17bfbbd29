//! Builds the web app: `cargo run --manifest-path ui/Cargo.toml -p xtask -- build`.
//!
//! Compiles `ui` to WebAssembly, binds it with wasm-bindgen as a library (its version is the lock file's, so the two
//! halves can't drift apart), compresses every file, and puts the result into `ui/dist` in one rename. Compiled parts
//! are kept in `ui/target`, or in a folder of `CARGO_TARGET_DIR` where that is set. Nothing is ever downloaded but
//! crates: a missing toolchain is a message.

use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

const TARGET: &str = "wasm32-unknown-unknown";

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["build"] => build(&RELEASE),
        ["build", "--fast"] => build(&FAST),
        _ => bail!("usage: xtask build [--fast]"),
    }
}

/// How much is done to make the app small.
struct Mode {
    /// Of cargo.
    profile: &'static str,
    compressed: bool,
}

const RELEASE: Mode = Mode { profile: "wasm-release", compressed: true };

/// For working on the UI: built in seconds, several times as large.
const FAST: Mode = Mode { profile: "wasm-fast", compressed: false };

fn build(mode: &Mode) -> Result<()> {
    // Asked at run time: a build cache shared by several checkouts must not build another one's tree.
    let xtask =
        env::var_os("CARGO_MANIFEST_DIR").context("run this through cargo: see `make ui`")?;
    let ui = Path::new(&xtask).parent().context("xtask lies in ui/")?;
    let dist = ui.join("dist");
    let stamp = format!("{}\n{}", mode.profile, newest_source(ui)?);
    if fs::read_to_string(dist.join(".stamp")).is_ok_and(|built| built == stamp) {
        println!("ui: up to date");
        return Ok(());
    }
    let target_dir = target_dir(ui)?;
    let wasm = compile(ui, &target_dir, mode.profile)?;
    let fresh = ui.join("dist.tmp");
    if fresh.exists() {
        fs::remove_dir_all(&fresh)?;
    }
    fs::create_dir_all(&fresh)?;
    wasm_bindgen_cli_support::Bindgen::new()
        .input_path(&wasm)
        .web(true)?
        .out_name("ui")
        .typescript(false)
        .remove_name_section(true)
        .remove_producers_section(true)
        .generate(&fresh)?;
    for entry in fs::read_dir(ui.join("static"))? {
        let entry = entry?;
        fs::copy(entry.path(), fresh.join(entry.file_name()))?;
    }
    if mode.compressed {
        for entry in fs::read_dir(&fresh)? {
            compress(&entry?.path())?;
        }
    }
    fs::write(fresh.join(".stamp"), &stamp)?;
    if dist.exists() {
        fs::remove_dir_all(&dist)?;
    }
    fs::rename(&fresh, &dist)?;
    let (file, how) = match mode.compressed {
        true => ("ui_bg.wasm.br", "compressed"),
        false => ("ui_bg.wasm", "not compressed"),
    };
    let size = fs::metadata(dist.join(file))?.len();
    println!("ui: built, {} KiB of WebAssembly {how}", size.div_ceil(1024));
    Ok(())
}

/// Where compiled parts are kept: apart from the host's, which may be made by another version of cargo.
fn target_dir(ui: &Path) -> Result<PathBuf> {
    match env::var_os("CARGO_TARGET_DIR").filter(|dir| !dir.is_empty()) {
        // Relative to where cargo was called, as cargo itself has it.
        Some(dir) => Ok(std::path::absolute(dir)?.join("ui-wasm")),
        None => Ok(ui.join("target")),
    }
}

/// Length and time of every source file, so that an unchanged tree is not built again.
fn newest_source(ui: &Path) -> Result<String> {
    let mut files = BTreeMap::new();
    let roots = [
        ui.join("app"),
        ui.join("core"),
        ui.join("static"),
        ui.join("Cargo.toml"),
        ui.join("Cargo.lock"),
        ui.join("../query/api/src"),
    ];
    for root in roots {
        visit(&root, &mut files)?;
    }
    let mut stamp = String::new();
    for (path, (len, modified)) in files {
        stamp.push_str(&format!("{} {len} {modified}\n", path.display()));
    }
    Ok(stamp)
}

fn visit(path: &Path, files: &mut BTreeMap<PathBuf, (u64, u128)>) -> Result<()> {
    let metadata = fs::metadata(path).with_context(|| format!("{} is missing", path.display()))?;
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            visit(&entry?.path(), files)?;
        }
    } else {
        let modified = metadata.modified()?.duration_since(std::time::UNIX_EPOCH)?.as_nanos();
        files.insert(path.to_owned(), (metadata.len(), modified));
    }
    Ok(())
}

/// How to compile for the web on this machine.
enum Toolchain {
    /// The installed toolchain has the target.
    Plain,
    /// Debian's compiler, with the standard library built from its source package.
    Debian { cargo: PathBuf, rustc: PathBuf, linker: PathBuf },
}

fn toolchain() -> Result<Toolchain> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let sysroot = output(Command::new(&rustc).args(["--print", "sysroot"]))?;
    let lib = Path::new(&sysroot).join("lib/rustlib");
    if lib.join(TARGET).is_dir() {
        return Ok(Toolchain::Plain);
    }
    let debian = debian_file("rustc-web", "bin/rustc").zip(debian_file("cargo-web", "bin/cargo"));
    let source = debian_file("rust-web-src", "library/std/Cargo.toml");
    let (Some((rustc, cargo)), Some(_)) = (debian, source) else {
        bail!(
            "this machine can't compile to WebAssembly yet. With rustup: `rustup target add {TARGET}`. \
             On Debian: `apt-get install rustc-web cargo-web rust-web-src lld-22`. Then run this again."
        );
    };
    let host_lld = fs::read_dir(&lib)?
        .filter_map(|entry| Some(entry.ok()?.path().join("bin/rust-lld")))
        .find(|path| path.is_file());
    let linker = host_lld
        .or_else(|| Some(PathBuf::from("/usr/bin/wasm-ld-22")).filter(|path| path.is_file()))
        .context("no WebAssembly linker: `apt-get install lld-22`")?;
    Ok(Toolchain::Debian { cargo, rustc, linker })
}

/// A file of an installed Debian package, by the end of its path.
fn debian_file(package: &str, end: &str) -> Option<PathBuf> {
    let list = output(Command::new("dpkg").args(["-L", package])).ok()?;
    list.lines().map(PathBuf::from).find(|path| path.ends_with(end) && path.is_file())
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?} can't be run"))?;
    if !output.status.success() {
        bail!("{command:?} failed");
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn compile(ui: &Path, target_dir: &Path, profile: &str) -> Result<PathBuf> {
    let mut command = match toolchain()? {
        Toolchain::Plain => Command::new("cargo"),
        Toolchain::Debian { cargo, rustc, linker } => {
            let mut command = Command::new(cargo);
            command
                .env("RUSTC", rustc)
                .env("RUSTC_BOOTSTRAP", "1")
                .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker)
                .env_remove("RUSTUP_TOOLCHAIN")
                .env_remove("CARGO")
                .arg("-Zbuild-std=std,panic_abort");
            command
        }
    };
    // What an outer cargo sets for its own build must not leak into this one.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy().into_owned();
        let leaks = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_CRATE_", "CARGO_BIN_", "CARGO_BUILD_"];
        if leaks.iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER", "CARGO_TARGET_DIR"] {
        command.env_remove(name);
    }
    let target: OsString = target_dir.into();
    command
        .current_dir(ui)
        .args(["build", "--locked", "-p", "ui", "--lib", "--target", TARGET])
        .args(["--profile", profile, "--target-dir"])
        .arg(target);
    let status = command.status().with_context(|| format!("{command:?} can't be run"))?;
    if !status.success() {
        bail!("the web app did not compile");
    }
    Ok(target_dir.join(TARGET).join(profile).join("ui.wasm"))
}

/// Writes `.br` and `.gz` beside a file. The WebAssembly stays in these forms only: it is the largest file by far, and
/// whoever asks for it as it is gets it unpacked.
fn compress(path: &Path) -> Result<()> {
    let bytes = fs::read(path)?;
    let beside = |extension: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(extension);
        PathBuf::from(name)
    };
    let mut brotli = Vec::new();
    let parameters = brotli::enc::BrotliEncoderParams { quality: 11, ..Default::default() };
    brotli::BrotliCompress(&mut bytes.as_slice(), &mut brotli, &parameters)?;
    fs::write(beside(".br"), brotli)?;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(&bytes)?;
    fs::write(beside(".gz"), gzip.finish()?)?;
    if path.extension().is_some_and(|extension| extension == "wasm") {
        fs::remove_file(path)?;
    }
    Ok(())
}
