-- The tools of the repair for damage, and the damage of META itself. It comes before the parts that read META.

-- @include lib/mend_steps.lua
-- @takes DAMAGED from lib/base.lua

local LARGEST, CENTURY = 1e15, 3.2e15 -- the largest tag or time in ms that is not nonsense; a hundred years in µs
local fixed_types, prefix_types = TYPES_OF_FIXED, TYPES_OF_PREFIXES

local function type_of(key) return redis.call('TYPE', key).ok end

-- Returns a stored number; nil if it is none, or no finite one.
local function finite(stored)
  local n = tonumber(stored)
  if n and n == n and n > -math.huge and n < math.huge then return n end
end

local function in_range(stored, least, most)
  local n = finite(stored)
  return n and n >= least and n <= most
end

local function note_repair(key, text) report('r', key .. ': ' .. text) end

-- Returns a new name for what is set aside of a key.
local function aside_of(key)
  local name = key == META and ':meta' or key:sub(#META + 1)
  local unused, n = ASIDE .. state.began .. name, 0
  while redis.call('EXISTS', unused) == 1 do
    n = n + 1
    unused = ASIDE .. state.began .. '-' .. n .. name
  end
  return unused
end

local function set_key_aside(key, why)
  local name = aside_of(key)
  redis.call('RENAME', key, name)
  report('s', key .. ' ' .. why .. ': it is now ' .. name)
end

local function set_field_aside(key, field, value, why)
  local name = ASIDE .. state.began .. key:sub(#META + 1)
  if type_of(name) ~= 'hash' and redis.call('EXISTS', name) == 1 then name = name .. ':fields' end
  redis.call('HSET', name, field, value)
  redis.call('HDEL', key, field)
  report('s', key .. ': ' .. why .. ' ' .. field .. ': it is now a field of ' .. name)
end

-- Sets a key aside that has another type. Returns whether there is one of the right type.
local function has_type(key, kind)
  local found = type_of(key)
  if found == kind or found == 'none' then return found == kind end
  set_key_aside(key, 'was a ' .. found .. ' instead of a ' .. kind)
  return false
end

local function drop_of_meta(field, text)
  redis.call('HDEL', META, field)
  note_repair(META, text)
end

-- Returns the epoch of a layout (see grow.lua), -1 if it makes no sense.
local function epoch_of(layout) return tonumber((layout or ''):match('^(%d+):%d+[,%d]*$')) or -1 end

-- The hash of the shard itself. What was fixed when it was created comes with the call.
local function repair_meta(version_at)
  if type_of(META) ~= 'hash' and type_of(META) ~= 'none' then set_key_aside(META, 'was no hash') end
  redis.call('HSET', META, 'torn', '1')
  for i, field in ipairs({ 'version', 'shards', 'step', 'fair_by', 'layout' }) do
    local given, stored = ARGV[version_at + i - 1], redis.call('HGET', META, field)
    local is_later = field == 'layout' and epoch_of(stored) > epoch_of(given)
    if (given or '') ~= '' and stored ~= given and not is_later then
      redis.call('HSET', META, field, given)
      note_repair(META, field .. ' is ' .. given .. ' again')
    end
  end
  local now_us = now_ms() * 1000
  local most = { stamp = now_us + DAMAGED, behind = DAMAGED, virtual = LARGEST, period = LARGEST, turned = LARGEST,
    stolen = LARGEST, largest = LARGEST }
  for field, limit in pairs(most) do
    local stored = redis.call('HGET', META, field)
    if stored and not in_range(stored, 0, limit) then drop_of_meta(field, field .. ' made no sense') end
  end
  local total, kinds, plugins = unpack(redis.call('HMGET', META, 'total', 'kinds', 'plugins'))
  if total and #total ~= 65 then drop_of_meta('total', 'the counts of the shard could not be read') end
  if kinds and not kinds:match('^%d+[,%d]*$') then
    drop_of_meta('kinds', 'the kinds of runtimes could not be read')
  end
  redis.call('HDEL', META, 'homes', 'letters', 'letters_at') -- only remembered (see homes.lua, ended_tasks.lua)
  if plugins and not plugins:match('^,[%w_.,-]*$') then
    drop_of_meta('plugins', 'the plugins that the shard depends on could not be read')
  end
end

-- Deletes what another repair has left, its report only if that is of no use any more.
local function forget_repair(keeps_report)
  local others = { TENANTS, LIMITS_FOUND }
  for i, prefix in ipairs(prefix_types) do others[i + 2] = prefix[1] end
  for _, name in ipairs(others) do has_type(list_of(name), 'list') end
  forget_lists()
  if has_type(MENDED, 'list') and not keeps_report then redis.call('UNLINK', MENDED) end
  if has_type(MENDING, 'hash') then redis.call('UNLINK', MENDING) end
end
