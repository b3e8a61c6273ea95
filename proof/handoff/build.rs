//! Sets `cfg(loom)`, with which the included files use loom's types instead of the standard library's.

fn main() {
    println!("cargo::rustc-check-cfg=cfg(loom)");
    println!("cargo::rustc-cfg=loom");
}
