//! A build for CUDA finds the libraries that `pipelines/runtime/toolkit.sh` fetched without a library path.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_CUDA").is_some() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
        println!("cargo:rustc-link-arg=-Wl,-rpath,{root}/.runtime/toolkit/nvidia/cu13/lib");
    }
}
