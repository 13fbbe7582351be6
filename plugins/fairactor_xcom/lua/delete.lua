-- Deletes values of a run: that of a task under a key, or some of those under a key, or of all.
--
-- KEYS  1 META of the shard
-- ARGV  1 tenant, 2 run, 3 key, 4 the task that stored it, or '' for all tasks; with two arguments: all of the run
-- Reply {how many values, 1 if there may be more}
--
-- Bounded: 200 values.
-- Safe to repeat: the entries of a value are removed before it if it is found by its task, otherwise after it, so a repeat
-- deletes what is left.

-- @include lib/intact.lua

local AT_ONCE = 200
local place, key, task = #ARGV[1] .. ':' .. ARGV[1] .. ARGV[2], ARGV[3], ARGV[4] or ''
local values, index, expiry = OWN .. place, OWN .. 'index:' .. place, OWN .. 'expiry:' .. place
local prefix = key and struct.pack('>Hc0', #key, key)
local function field_of(of_task, of_key) return struct.pack('>Hc0', #of_task, of_task) .. of_key end
local function lives(kept_until) return kept_until == 0 or kept_until > shard.ms end

if task ~= '' then
  local value = call('HGET', values, field_of(task, key))
  if not value then return { 0, 0 } end
  local kept_until, at = struct.unpack('>dd', value)
  local entry = prefix .. struct.pack('>dd', at, kept_until) .. task
  call('ZREM', index, entry)
  call('ZREM', expiry, entry)
  call('HDEL', values, field_of(task, key))
  return { lives(kept_until) and 1 or 0, 0 }
end
local from, to = key and '[' .. prefix or '-', key and '(' .. prefix .. '\255' or '+'
local entries = call('ZRANGEBYLEX', index, from, to, 'LIMIT', 0, AT_ONCE)
local fields, count = {}, 0
for n, entry in ipairs(entries) do
  local of_key, _, kept_until, at = struct.unpack('>Hc0dd', entry)
  fields[n] = field_of(entry:sub(at), of_key)
  if lives(kept_until) then count = count + 1 end
end
write_all('HDEL', values, fields)
write_all('ZREM', expiry, entries)
write_all('ZREM', index, entries)
if #entries == AT_ONCE then return { count, 1 } end
if not key then call('UNLINK', values, expiry, index) end
return { count, 0 }
