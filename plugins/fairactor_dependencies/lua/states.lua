-- Tells how tasks stand.
--
-- KEYS  1 META of the shard
-- ARGV  1 their tenant, or '' for any, 2 and on: ids
-- Reply for each task F finished, X failed, C canceled, S skipped, or the state of a live task in full; '' if there is no
--       such task
--
-- Bounded: its caller asks for 200 tasks, and it reads the first kilobyte of each.
-- Reads only.

-- @include lib/intact.lua
-- @include lib/owner.lua
-- @include lib/locate.lua
-- @include own/outcome.lua
-- @include own/heads.lua

local ids, reply = {}, {}
for i = 2, #ARGV do ids[i - 1] = ARGV[i] end
local records = read_heads(ids)
local states = locate(ids, records)
for i, record in ipairs(records) do
  if not record or not is_owned_by(ARGV[1], record) then
    reply[i] = ''
  elseif record:sub(1, 1) == LIVE then
    reply[i] = states[i]
  elseif record:sub(1, 1) == CANCELED_STATE and state_of(ids[i], record) == SKIPPED then
    reply[i] = SKIPPED
  else
    reply[i] = record:sub(1, 1)
  end
end
return reply
