from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("store", "0011_stock_sold_not_null")]
    operations = [
        migrations.RenameField("order", "reference", "number"),
        migrations.AddIndex("order", models.Index(fields=["origin"], name="store_order_origin")),
    ]
