-- Sends a run of a schedule now, beside its planned ones.
--
-- KEYS  1 META of the shard
-- ARGV  1 schedule, 2 id of the task, or of the run of a graph
-- Reply {verdict (see send.lua), id of the task, or of the last one}, or nothing without such a schedule;
--       or the error GONE: the tenant has moved to another shard
--
-- Bounded: one run, of up to 500 tasks.
-- Safe to repeat: the id is accepted once.

-- @include lib/intact.lua
-- @include lib/accept.lua
-- @include own/lib.lua
-- @include own/home.lua
-- @include own/sending.lua

local key, id = key_of(ARGV[1]), ARGV[2]
local item, lines, graph = unpack(call('HMGET', key, 'item', 'lines', 'graph'))
if not item then return false end
local items = {}
local ids = add_tasks(items, item, graph and graph ~= '' and read_graph(graph), id)
local verdict = verdict_of(accept(items, '', ''), 1, #items)
local duplicate = type(verdict) == 'string'
local task = duplicate and verdict or id
local noted = verdict == FULL or lines and lines:find(id, 1, true) -- a repeat
if not noted then
  lines = add_line(lines, shard.wall_ms,
    duplicate and 'duplicate' or verdict == TAKEN_BY_ANOTHER and 'refused' or 'sent', task)
end
update_ring(arriving)

begin_writing()
local wake_later = write_accepted()
if not noted then call('HSET', key, 'lines', lines) end
save_counts()
save_shard()
wake_later()
return { verdict, ids[#ids] }
