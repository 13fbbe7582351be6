-- The frame of a plugin's script that admits or ends tasks.

-- @include lib/intact.lua
-- @include lib/counts.lua
-- @include lib/ring.lua
-- @include lib/queues.lua
-- @include lib/ending.lua

-- Runs the `ends` hooks and writes everything. A script reads nothing after it.
local function carry_out()
  run_ends_hook()
  update_ring(arriving)

  begin_writing()
  write_ends()
  save_counts()
  save_shard()
end
