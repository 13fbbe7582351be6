-- The frame of a plugin's script that lets tasks go, or ends them.

-- @include lib/intact.lua
-- @include lib/counts.lua
-- @include lib/ring.lua
-- @include lib/queues.lua
-- @include lib/ending.lua

-- Has plugins make of it what they do, and writes it all. Nothing is read after it.
local function carry_out()
  run_ends_hook()
  update_ring(arriving)

  begin_writing()
  write_ends()
  save_counts()
  save_shard()
end
