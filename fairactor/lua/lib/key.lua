-- Deduplication keys that this script assigns to tasks.

-- @include lib/base.lua

local key_owners, keyed_fields = {}, {} -- key -> its task in this script; task, field of KEYED, ...

-- Returns the task that a key already stands for, or assigns the key, if any, and returns nil. `packed` is '' or the
-- window, 8 bytes, then the key. The length before a tenant's name keeps the keys of tenants apart.
local function take_key(id, name, packed)
  if packed == '' then return nil end
  local key = #name .. ':' .. name .. packed:sub(9)
  local holder = key_owners[key] or call('GET', KEY .. key)
  if holder then return holder end
  key_owners[key] = id
  keyed_fields[#keyed_fields + 1], keyed_fields[#keyed_fields + 2] = id, packed:sub(1, 8) .. key
end

-- Takes back the keys assigned since `keyed_fields` had `n` entries.
local function drop_keys(n)
  for i = #keyed_fields, n + 1, -2 do
    key_owners[keyed_fields[i]:sub(9)] = nil
    keyed_fields[i], keyed_fields[i - 1] = nil, nil
  end
end

local function write_keys()
  for key, id in pairs(key_owners) do call('SET', KEY .. key, id) end
  write_all('HSET', KEYED, keyed_fields)
end
