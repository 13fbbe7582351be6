-- Returns those of some tasks that do not exist, or no longer.
--
-- KEYS  1 META of the shard
-- ARGV  ids
-- Reply those ids
--
-- Reads only.

-- @include lib/intact.lua

local unknown = {}
for i, record in ipairs(read_records(ARGV)) do
  if not record then unknown[#unknown + 1] = ARGV[i] end
end
return unknown
