-- Deletes values of a run.
--
-- KEYS  1 META of the shard
-- ARGV  1 tenant, 2 run, 3 key, 4 the task that stored it, or '' for all tasks; with two arguments: all of the run
-- Reply how many values
--
-- Safe to repeat: the index of a value is removed after the value, so a repeat deletes what is left.

-- @include lib/intact.lua

local place, key, task = #ARGV[1] .. ':' .. ARGV[1] .. ARGV[2], ARGV[3], ARGV[4] or ''
local values, index, expiry = OWN .. place, OWN .. 'index:' .. place, OWN .. 'expiry:' .. place
local prefix = key and struct.pack('>Hc0', #key, key)
local entries = key and call('ZRANGE', index, '[' .. prefix, '(' .. prefix .. '\255', 'BYLEX') or call('ZRANGE', index, 0, -1)
local fields, deleted, count = {}, {}, 0
for _, entry in ipairs(entries) do
  local of_key, _, kept_until, at = struct.unpack('>Hc0dd', entry)
  local of_task = entry:sub(at)
  if task == '' or of_task == task then
    fields[#fields + 1], deleted[#deleted + 1] = struct.pack('>Hc0', #of_task, of_task) .. of_key, entry
    if kept_until == 0 or kept_until > shard.ms then count = count + 1 end
  end
end
if key then
  write_all('HDEL', values, fields)
  write_all('ZREM', expiry, deleted)
  write_all('ZREM', index, deleted)
else
  call('DEL', values)
  call('DEL', expiry)
  call('DEL', index)
end
return count
