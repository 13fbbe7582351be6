-- Sends a run of a schedule now, beside its planned ones.
--
-- KEYS  1 META of the shard
-- ARGV  1 schedule, 2 id of the task
-- Reply the verdict (see send.lua), or nothing without such a schedule
--
-- Safe to repeat: the id is accepted once.

-- @include lib/intact.lua
-- @include lib/accept.lua
-- @include own/lib.lua

local key, id = key_of(ARGV[1]), ARGV[2]
local item, lines = unpack(call('HMGET', key, 'item', 'lines'))
if not item then return false end
local verdicts = accept({ with_id(item, id) }, '', '')
local verdict = verdicts and verdicts[1] or 0
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
return verdict
