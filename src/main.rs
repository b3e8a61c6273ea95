//! The entry point of the program: parses the command line, starts logging, runs one command, and returns the exit
//! code.

use std::process::ExitCode;

use citystream::cmd;
use citystream::exit::SettingsError;
use citystream::remedy;
use citystream::settings::{Command, check_environment, parse};
use citystream::shutdown::Shutdown;
use citystream::telemetry::{Metrics, start_logging};

fn main() -> ExitCode {
    citystream::sys::use_static_name_service();
    citystream::sys::keep_openssl_at_exit();
    let cli = parse(std::env::args_os()).unwrap_or_else(|error| error.exit());
    let format = cli.command.log().log_format;
    if let Err(failure) = check_environment(&cli.command).and_then(|()| start_logging(format)) {
        let exit = remedy::report(&SettingsError(failure).into(), None);
        return ExitCode::from(exit.code());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("the system provides threads for the runtime");
    let result = runtime.block_on(async {
        let (metrics, shutdown) = (Metrics::new(), Shutdown::on_signals());
        match cli.command {
            Command::InitTables(args) => cmd::init_tables::run(args, metrics, shutdown).await,
            Command::Produce(args) => cmd::produce::run(args, metrics, shutdown).await,
            Command::Consume(args) => cmd::consume::run(args, metrics, shutdown).await,
            Command::Serve(args) => cmd::serve::run(args, metrics, shutdown).await,
            Command::Tail(args) => cmd::tail::run(args, metrics, shutdown).await,
            Command::Notify(args) => cmd::notify::run(args, metrics, shutdown).await,
            Command::Silence(args) => cmd::silence::run(args).await,
            Command::Verify(args) => cmd::verify::run(args, metrics, shutdown).await,
            Command::Check(args) => cmd::check::run(args, shutdown).await,
            Command::Config(args) => cmd::config::run(&args),
            Command::Print(args) => cmd::print::run(&args),
            #[cfg(feature = "dev")]
            Command::Dev(args) => cmd::dev::run(args, metrics, shutdown).await,
        }
    });
    // Do not wait for threads that are still blocked in a call of librdkafka.
    runtime.shutdown_background();
    let exit = match result {
        Ok(exit) => exit,
        Err(error) => remedy::report(&error, format),
    };
    ExitCode::from(exit.code())
}
