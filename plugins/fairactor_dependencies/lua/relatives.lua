-- Tells of tasks whose they are, and how they stand.
--
-- KEYS  1 META of the shard
-- ARGV  1 and on: ids
-- Reply for each its tenant, and F finished, X failed, C canceled, or the state of a live task in full; twice '' if there is
--       no such task
--
-- Bounded: its caller asks for 100 tasks, and it reads the first kilobyte of each.
-- Reads only.

-- @include lib/intact.lua
-- @include lib/locate.lua
-- @include own/heads.lua

local reply = {}
local records = read_heads(ARGV)
local states = locate(ARGV, records)
for i, record in ipairs(records) do
  local stored = record and record:sub(1, 1)
  reply[2 * i - 1] = record and tenant_of(record) or ''
  reply[2 * i] = not record and '' or stored == LIVE and states[i] or stored
end
return reply
