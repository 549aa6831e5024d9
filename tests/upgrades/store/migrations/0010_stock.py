from typing import Any

from django.db import migrations, models


def count(apps: Any, schema_editor: Any) -> None:
    product, stock, effect = (
        apps.get_model("store", name) for name in ("Product", "Stock", "Effect")
    )
    for each in product.objects.order_by("pk"):
        stock.objects.create(product=each, origin=each.origin)
        effect.objects.create(routine="migration 0010", item=str(each.pk), origin=each.origin)


class Migration(migrations.Migration):
    dependencies = [("store", "0009_drop_price")]
    operations = [
        migrations.CreateModel(
            "Stock",
            [
                (
                    "product",
                    models.OneToOneField("store.Product", models.CASCADE, primary_key=True),
                ),
                ("origin", models.IntegerField()),
                ("sold", models.IntegerField(null=True)),
            ],
        ),
        migrations.RunPython(count, migrations.RunPython.noop),
    ]
