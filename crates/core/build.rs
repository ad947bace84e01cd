//! Compiles the checked-in `.proto` to Rust, without needing protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto/left.proto");
    let files = protox::compile(["proto/left.proto"], ["proto"])?;
    prost_build::Config::new().compile_fds(files)?;
    Ok(())
}
