//! The `logitcask` command.

fn main() -> std::process::ExitCode {
    logitcask_cli::main()
}
