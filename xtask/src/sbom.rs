//! `cargo xtask sbom`: what the program is made of, as a CycloneDX list. The same sources give the
//! same list, byte for byte.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::{Value, json};

use crate::crates::{Crates, Package, checksums};

pub fn run() -> Result<ExitCode> {
    let crates = Crates::read()?;
    let sums = checksums()?;
    let all = crates.closure("left")?;
    let is_program = |p: &&&Package| p.name == "left" && p.source.is_none();
    let component = |p: &Package| {
        let mut component = json!({
            "type": "library",
            "bom-ref": purl(p),
            "name": p.name,
            "version": p.version,
            "purl": purl(p),
        });
        if let Some(license) = &p.license {
            let expression = license.replace('/', " OR ");
            component["licenses"] = json!([{ "expression": expression }]);
        }
        if let Some(sum) = sums.get(&(p.name.clone(), p.version.clone())) {
            component["hashes"] = json!([{ "alg": "SHA-256", "content": sum }]);
        }
        component
    };
    let mut program = all.iter().find(is_program).map(|p| component(p));
    if let Some(program) = &mut program {
        program["type"] = json!("application");
    }
    let others = all.iter().filter(|p| !is_program(p));
    let components: Vec<Value> = others.map(|p| component(p)).collect();
    let depends = |p: &&Package| {
        let on: Vec<String> = crates.needs(p).map(purl).collect();
        json!({ "ref": purl(p), "dependsOn": on })
    };
    let list = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": program },
        "components": components,
        "dependencies": all.iter().map(depends).collect::<Vec<_>>(),
    });
    println!("{}", serde_json::to_string_pretty(&list)?);
    Ok(ExitCode::SUCCESS)
}

fn purl(package: &Package) -> String {
    // A `+` begins a qualifier's value otherwise.
    let version = package.version.replace('+', "%2B");
    format!("pkg:cargo/{}@{version}", package.name)
}
