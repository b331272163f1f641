// The subcommands of megalodon-run. Each adds its options to the application
// and the callback that runs it.
#pragma once

namespace CLI {
class App;
}

namespace megalodon {

void addInvoke(CLI::App &app);

} // namespace megalodon
