-- Reads values of a run.
--
-- KEYS  1 META of the shard
-- ARGV  1 tenant, 2 run, 3 key, 4 and on: ids of the tasks that stored it, '' for the run's last one
-- Reply a value for each, or nothing if there is none
--
-- Reads only.

-- @include lib/intact.lua

local run_key, fields = OWN .. #ARGV[1] .. ':' .. ARGV[1] .. ARGV[2], {}
for i = 4, #ARGV do fields[#fields + 1] = struct.pack('>Hc0', #ARGV[i], ARGV[i]) .. ARGV[3] end
local found = read_all('HMGET', run_key, fields)
for i, packed in ipairs(found) do
  local expires_at = packed and struct.unpack('>d', packed)
  found[i] = packed and (expires_at == 0 or expires_at > shard.ms) and packed:sub(17)
end
return found
