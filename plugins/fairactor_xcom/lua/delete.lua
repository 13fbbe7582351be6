-- Deletes values of a run.
--
-- KEYS  1 META of the shard
-- ARGV  1 tenant, 2 run, 3 key, 4 the task that stored it, or '' for all tasks; with two arguments: all of the run
-- Reply how many values
--
-- Safe to repeat: a deleted value is not there.

-- @include lib/intact.lua

local run_key, key, task = OWN .. #ARGV[1] .. ':' .. ARGV[1] .. ARGV[2], ARGV[3], ARGV[4]
local deleted, count = {}, 0
if not key then
  count = call('HLEN', run_key)
  for _, field in ipairs(call('HKEYS', run_key)) do
    if #field < 2 or struct.unpack('>H', field) == 0 then count = count - 1 end
  end
  call('DEL', run_key)
  return count
end
local last = struct.pack('>H', 0) .. key
local last_value = call('HGET', run_key, last)
for _, field in ipairs(task ~= '' and { struct.pack('>Hc0', #task, task) .. key } or call('HKEYS', run_key)) do
  local length = #field > 1 and struct.unpack('>H', field) or 0
  local value = length > 0 and field:sub(3 + length) == key and call('HGET', run_key, field)
  if value then
    deleted[#deleted + 1], count = field, count + 1
    if value == last_value then deleted[#deleted + 1] = last end
  end
end
write_all('HDEL', run_key, deleted)
return count
