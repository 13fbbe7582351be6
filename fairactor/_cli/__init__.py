"""The commands of ``fairactor``. Import only from below here: `fairactor.commands` is what plugins may use.

**How a command is added**: write a click command (or group) in a module of this package, decorate it with the shared
options of `options` that it takes, and add a row to `COMMANDS` of `table`. The module is imported when it runs.
A command is a plain function. It returns its exit code (None is 0), see `exits`; it raises errors of
`fairactor.errors` and `click.UsageError` as they are, because `main` prints them and chooses the exit code.

    @click.command()
    @connection_options
    @output_options
    def stats(connection: Connection, output: Output) -> int:
        '''Counts the tasks in each state.'''
        return connection.run(partial(_stats, output))

    async def _stats(output: Output, runtime: Runtime) -> int: ...
"""
