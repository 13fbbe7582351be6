-- Tells which of some tasks exist.
--
-- KEYS  1 META of the shard
-- ARGV  for each task: id, its tenant, or '' for any
-- Reply for each task 1, or 0 if the tenant has no such task, or no longer
--
-- Reads only.

-- @include lib/intact.lua
-- @include lib/owner.lua

local ids, known = {}, {}
for i = 1, #ARGV, 2 do ids[#ids + 1] = ARGV[i] end
for i, record in ipairs(read_records(ids)) do known[i] = record and is_owned_by(ARGV[2 * i], record) and 1 or 0 end
return known
