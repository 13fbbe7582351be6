-- Adds a schedule, or replaces its definition. What it has done stays, and it stays paused.
--
-- KEYS  1 META of the shard
-- ARGV  1 schedule, 2 the version to replace, '' for none, 3 a generation that no other has, 4 ms at which it is due,
--       then field, value, ...: definition, digest, message (digest of the item), metadata, planned, overlap, budget,
--       kept; item, graph, many and steps, if it has another message; plugins, ',a,b,': those that a graph needs; created, if it is new; declared, the actor, if an actor declares it
-- Reply 1, or 0 if it has another version by now;
--       or the error GONE: the tenant has moved to another shard
--
-- Bounded: one schedule.
-- Safe to repeat: the generation tells.

-- @include lib/intact.lua
-- @include lib/plugins.lua
-- @include own/lib.lua
-- @include own/home.lua

local schedule, replaced, generation, due = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local key = key_of(schedule)
local version, before, state, waiting = unpack(call('HMGET', key, 'version', 'generation', 'state', 'waiting'))
if before == generation then return 1 end
if (version or '') ~= replaced then return 0 end

state = state == 'paused' and 'paused' or 'active'
local fields = { 'version', integer((version or 0) + 1), 'generation', generation, 'state', state, 'checked', 0 }
local function add_field(field, value) fields[#fields + 1], fields[#fields + 2] = field, value end
if not version then add_field('runs', 0) end
local declared, needed
for i = 5, #ARGV, 2 do
  if ARGV[i] == 'declared' then
    declared = ARGV[i + 1]
  elseif ARGV[i] == 'plugins' then
    needed = ARGV[i + 1]
  else
    add_field(ARGV[i], ARGV[i + 1])
  end
end
for plugin in (needed or ''):gmatch('[^,]+') do depend_on(plugin) end -- before a runtime without it sends a run
if waiting and #cmsgpack.unpack(waiting) > 0 then due = shard.wall_ms end

begin_writing()
write_these(later)
call('ZADD', OWN .. 'all', 0, schedule)
if state == 'active' then put_due(schedule, due) end
if declared then call('HSET', OWN .. 'declared', schedule, declared) end
call('HSET', key, unpack(fields)) -- last: without it, the rest is tidied up
write_these(last)
end_writing()
return 1
