mod bindings {
    wit_bindgen::generate!({ path: "../../wit", world: "strategy", pub_export_macro: true, generate_all, default_bindings_module: "rollout_sdk::bindings" });
}
